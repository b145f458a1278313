"""A model with a past: two rounds, a rejection, an upload underway, hostile words, scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from coldfusion_server.services.closing import close_by_hand
from tests.server.repository import MODEL, Repository, body_of, declaration, tiny_tensors
from tests.shared.checkpoints import file_bytes

HOSTILE = "<script>alert(1)</script>"
LONG = "a data set whose name does not end, " + "x" * 120
PRIVATE = "acme/secret"


def contribute(
    repo: Repository, who: str, raw: bytes, base: str = "v0", **work: Any
) -> dict[str, Any]:
    """Declare, upload, complete and screen; return the declaration's answer."""
    someone = repo.contributor(who)
    answer = someone.client.post(
        f"/v1/models/{MODEL}/contributions",
        json={**declaration(raw, base), "work": work},
        headers={"Idempotency-Key": f"key of {who} for {base}"},
    )
    assert answer.status_code == 201, answer.text
    declared: dict[str, Any] = answer.json()
    someone.upload(declared["upload"], raw)
    assert someone.complete(declared["contribution"]["id"]).status_code == 200
    repo.work()
    return declared


def evaluate(repo: Repository, version: str, **scores: float) -> None:
    """Post scores of one base, measured with three seeds and small errors."""
    errors = dict.fromkeys(scores, 0.2)
    answer = repo.client(repo.token("eve", "evaluator")).post(
        f"/v1/models/{MODEL}/bases/{version}/evaluations",
        json={
            "suite": "demo",
            "protocol": "frozen",
            "scores": scores,
            "standard_errors": errors,
            "seeds": [0, 1, 2],
        },
    )
    assert answer.status_code == 201, answer.text


def close(repo: Repository) -> None:
    """Close the open round by hand and let a worker publish its base."""
    close_by_hand(repo.ctx, MODEL, "open", repo.principal("mia", "maintainer"))
    repo.work()


def live_through(repo: Repository) -> None:
    """Make the history."""
    tensors = tiny_tensors()
    repo.model(min_contributions=3)
    repo.model(PRIVATE, public=False)
    evaluate(repo, "v0", reviews=60.0, poems=70.0)
    raws = [file_bytes(body_of(tensors, seed)) for seed in range(6)]
    contribute(repo, "ann", raws[0], dataset="reviews", score_before=60.0, score_after=71.5)
    contribute(repo, "bob", raws[1], dataset=LONG)
    broken = body_of(tensors, 9)
    broken["encoder.layer.0.dense.bias"][0] = np.nan
    contribute(repo, "cyd", file_bytes(broken), dataset="broken")
    repo.clock.advance(minutes=90)
    close(repo)
    evaluate(repo, "v1", reviews=66.0, poems=68.0)
    contribute(repo, "ann", raws[2], "v1", task=HOSTILE, dataset=HOSTILE, metric=HOSTILE)
    repo.contributor("dan").declare(raws[3], base="v1")
