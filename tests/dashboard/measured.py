"""Models with many bases and much that was measured of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from coldfusion_server.db.tables import BaseRow
from coldfusion_server.services import bases
from coldfusion_server.services.head_moves import newest
from coldfusion_server.services.lookup import find_base, find_model, manifest_of
from coldfusion_server.services.rollback import roll_back
from coldfusion_shared.schemas.bases import Manifest, ParentBase
from coldfusion_shared.schemas.evaluations import Evaluation, Suite
from coldfusion_shared.schemas.models import RollbackRequest
from coldfusion_shared.schemas.recipes import Recipe
from tests.server.measured import dataset, suite
from tests.server.repository import MODEL, Repository

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOSTILE_NAMES = (
    '<script>alert("1")</script>',
    "a|b\n| c `d` [e](http://evil.example) ![f](//evil.example/g)",
    "</text></svg><script>alert(2)</script>",
    "\x08\x1b control ]]> --> &amp; {{ 7 * 7 }}",
    "x" * 100,
    "評判" * 50,
    "مراجعات الأفلام",
    "été ‮ reversed",
)


def evaluation(
    version: str,
    protocol: str = "frozen",
    at: int = 0,
    errors: dict[str, float] | float | None = None,
    digest: str | None = None,
    **more: Any,
) -> Evaluation:
    """
    Return an evaluation; what is not one of its fields is the score of a data set.

    Args:
        version: of the base.
        protocol: how it was measured.
        at: seconds after `NOW`.
        errors: of the scores; a number: of each.
        digest: the suite's.
        more: fields of `Evaluation`, and scores.
    """
    fields = {name: more.pop(name) for name in list(more) if name in Evaluation.model_fields}
    scores = {**fields.pop("scores", {}), **more}
    if isinstance(errors, int | float):
        errors = dict.fromkeys(scores, float(errors))
    values: dict[str, Any] = {
        "suite": "demo",
        "metric": "accuracy",
        "evaluator": "eve",
        "average": sum(scores.values()) / len(scores),
    }
    return Evaluation(
        version=version,
        protocol=protocol,
        scores=scores,
        standard_errors=errors or {},
        suite_digest=digest,
        created_at=NOW + timedelta(seconds=at),
        **{**values, **fields},
    )


def kinds_suite(seen: Sequence[str], unseen: Sequence[str], name: str = "text") -> Suite:
    """Return a suite that says which of its data sets contributors may have trained on."""
    datasets = [dataset(item, seen=True) for item in seen]
    return suite(name, [*datasets, *(dataset(item, seen=False) for item in unseen)])


def register(repo: Repository, of: Suite) -> None:
    """Register a suite."""
    client = repo.client(repo.token("eve", "evaluator"))
    answer = client.put(f"/v1/suites/{of.name}", json=of.model_dump(mode="json"))
    assert answer.status_code in (200, 201), answer.text


def measure(
    repo: Repository,
    version: str,
    scores: Mapping[str, float],
    of: Suite | None = None,
    who: str = "eve",
    errors: float | None = 1.0,
    **fields: Any,
) -> None:
    """Post scores of one base; the suite, if there is one, has to be registered."""
    seeds = fields.get("seeds", [0, 1, 2])
    body = {
        "suite": "hand-made" if of is None else of.name,
        "suite_digest": None if of is None else of.digest(),
        "protocol": "frozen",
        "scores": dict(scores),
        "standard_errors": {} if errors is None else dict.fromkeys(scores, errors),
        "seeds": seeds,
        "by_seed": {name: [score] * len(seeds) for name, score in scores.items()},
        "software": "coldfusion tests",
        **fields,
    }
    answer = repo.client(repo.token(who, "evaluator")).post(
        f"/v1/models/{MODEL}/bases/{version}/evaluations", json=body
    )
    assert answer.status_code in (200, 201), answer.text


def go_to(repo: Repository, version: str, reason: str) -> None:
    """Roll the model back to a base, or forward again."""
    wanted = RollbackRequest(version=version, reason=reason)
    roll_back(repo.ctx, MODEL, wanted, repo.principal("mia", "maintainer"))


def grow(repo: Repository, count: int, name: str = MODEL) -> None:
    """Add `count` bases onto the head, made of nothing: their files are those of the one before."""
    with repo.ctx.database.write() as session:
        model = find_model(session, name, repo.principal("mia", "maintainer"))
        for _ in range(count):
            head, number = find_base(session, model, "latest"), newest(session, model) + 1
            bases.add_base(repo.ctx, session, model, _next(head, number))


def _next(head: BaseRow, number: int) -> Manifest:
    manifest = manifest_of(head)
    return manifest.model_copy(
        update={
            "version": f"v{number}",
            "parent": ParentBase(version=manifest.version, digest=head.digest),
            "round": number,
            "recipe": Recipe(),
            "server_lr": 1.0,
            "created_at": manifest.created_at + timedelta(days=1),
        }
    )
