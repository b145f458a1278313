"""A round with as many contributions as a test likes, written down as screening leaves them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np

from coldfusion_server.db.tables import ContributionFileRow, ContributionRow
from coldfusion_server.services.contributors import added
from coldfusion_server.services.lookup import find_model, find_round
from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening.measures import Measures
from coldfusion_shared.screening.sketch import SIZE, Sketch
from tests.server.repository import MODEL, Repository

CHECKS = ("schema", "finite", "magnitude", "norm", "tensor_outliers", "sparsity", "unrelated",
          "copies", "direction", "constant", "integers", "frozen")  # fmt: skip


def findings(norm: str = "pass") -> list[Any]:
    """Return what the checks found; `norm`: the verdict of that one."""
    told = "1.07 times as long as the median update"
    return [
        Finding(
            check=check,
            verdict=norm if check == "norm" else "pass",  # type: ignore[arg-type]
            message=told,
            measured=1.071,
            limit=100.0,
        ).model_dump(mode="json")
        for check in CHECKS
    ]


def measured(length: float, seed: int) -> Measures:
    """Return measures of an update of that length, whose direction `seed` decides."""
    values = np.random.default_rng(seed).standard_normal(SIZE).astype(np.float32)
    return Measures(
        norm=length,
        base_norm=10.0,
        cosine_to_base=0.99,
        changed_share=1.0,
        largest=0.1,
        tensor_norms={f"encoder.layer.{number}.dense.weight": 0.01 for number in range(20)},
        digest=secrets.token_hex(32),
        sketch=Sketch(values * np.float32(length / np.linalg.norm(values))),
    )


def write(
    repo: Repository,
    names: Sequence[str],
    *,
    model: str = MODEL,
    number: str = "open",
    seed: int = 0,
    sketches: bool = True,
    **columns: Any,
) -> list[str]:
    """
    Write down one accepted contribution of each of `names`; return their ids.

    Args:
        repo: where.
        names: of contributors, who are made; others than those that there are.
        model: to which model.
        number: of the round.
        seed: decides the updates.
        sketches: whether they were measured.
        columns: of the rows, where they are to be otherwise.
    """
    ids = []
    with repo.ctx.database.write() as session:
        found = find_model(session, model, repo.principal("max", "maintainer"))
        round_id = find_round(session, found, number).id
        for place, name in enumerate(names):
            length = 1.0 + 0.1 * (place % 7)
            measures = measured(length, seed + place) if sketches else None
            row = ContributionRow(
                id=secrets.token_hex(8),
                model_id=found.id,
                round_id=round_id,
                base_number=found.current,
                contributor_id=added(session, name, repo.ctx.now()).id,
                encoding="full",
                idempotency_key=secrets.token_hex(8),
                request_sha256=secrets.token_hex(32),
                work={"dataset": "reviews", "examples": 100},
                declared_at=repo.ctx.now(),
                completed_at=repo.ctx.now(),
                decided_at=repo.ctx.now(),
                expires_at=repo.ctx.now(),
                tensors_digest=None if measures is None else measures.digest,
                measures=None if measures is None else measures.to_json(),
                sketch=None if measures is None else measures.sketch.to_text(),
                **{"state": "accepted", "position": place + 1, "findings": findings(), **columns},
            )
            row.files = [
                ContributionFileRow(
                    path="model.safetensors",
                    size=1000,
                    sha256=secrets.token_hex(32),
                    part_bytes=1000,
                )
            ]
            session.add(row)
            ids.append(row.id)
    return ids
