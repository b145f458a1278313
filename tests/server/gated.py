"""Rounds with a gate, for tests: up to where their candidates wait."""

from __future__ import annotations

from typing import Any

from coldfusion_server.services import models
from coldfusion_server.services.closing import close_by_hand
from coldfusion_shared.schemas.evaluations import EvaluationReport, Suite
from coldfusion_shared.schemas.gates import Gate
from coldfusion_shared.schemas.models import Policy
from tests.server.measured import report, suite
from tests.server.repository import MODEL, Json, Repository, body_file

ROUND = f"/v1/models/{MODEL}/rounds/1"


def register(repo: Repository, given: Suite | None = None) -> None:
    """Let somebody make a suite known."""
    found = suite() if given is None else given
    client = repo.client(repo.token("eva", "evaluator"))
    answer = client.put(f"/v1/suites/{found.name}", json=found.model_dump(mode="json"))
    assert answer.status_code in (200, 201), answer.text


def gated(repo: Repository, *, line_search: list[float] | None = None, **gate: Any) -> None:
    """Give the model a gate by the tests' suite."""
    register(repo)
    values = {"kind": "suite", "suite": "text-2", "noise": 0.0, **gate}
    policy(repo, gate=Gate(**values), line_search=line_search or [])


def policy(repo: Repository, **values: Any) -> None:
    """Set the model's policy."""
    maintainer = repo.principal("max", "maintainer")
    models.set_policy(repo.ctx, MODEL, Policy(**values), maintainer)


def fused(repo: Repository) -> list[Json]:
    """Have two contributions fused in round 1; return its candidates."""
    for seed in (1, 2):
        repo.contributor(f"c{seed}").contribute(body_file(seed))
    repo.work()
    close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))
    repo.work()
    return candidates(repo)


def candidates(repo: Repository) -> list[Json]:
    """Return those of round 1 that wait."""
    found: list[Json] = repo.get(f"{ROUND}/candidates", repo.token("eva", "evaluator"))
    return found


def post(
    repo: Repository, subject: str, level: float = 80.0, name: str = "eva", **changes: Any
) -> Any:
    """Hand in a level of scores of `bases/v0`, or of a candidate's id."""
    given = changes.pop("given", None) or report(suite(), level, **changes)
    assert isinstance(given, EvaluationReport)
    where = subject if "/" in subject else f"candidates/{subject}"
    client = repo.client(repo.token(name, "evaluator"))
    path = f"/v1/models/{MODEL}/{where}/evaluations"
    return client.post(path, json=given.model_dump(mode="json"))


def shown(repo: Repository) -> Json:
    """Return round 1."""
    return repo.get(ROUND)
