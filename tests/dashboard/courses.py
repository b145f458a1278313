"""Models with many rounds behind them, made at once: what became of each is simply written down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from coldfusion_server.db.tables import RoundRow
from coldfusion_server.services.lookup import find_model
from coldfusion_server.services.rounds import open_next
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.gates import EvaluatorVerdict, Gate, GateVerdict
from coldfusion_shared.schemas.models import Policy
from tests.dashboard.measured import grow
from tests.server.repository import MODEL, Repository

MAY_LOSE = 0.5


def verdict(loss: float = 0.0, **changes: Any) -> EvaluatorVerdict:
    """Return what an evaluator makes of a candidate that lost so many points."""
    values: dict[str, Any] = {
        "evaluator": "eve",
        "passed": loss <= MAY_LOSE,
        "base": 70.0,
        "candidate": 70.0 - loss,
        "difference": -loss,
        "allowed_loss": MAY_LOSE,
    }
    return EvaluatorVerdict(**{**values, **changes})


def rejected(*verdicts: EvaluatorVerdict, **changes: Any) -> GateVerdict:
    """Return what a gate says of a candidate that it did not let pass."""
    values = {"kind": "suite", "passed": False, "reason": "The mean score lost too much."}
    return GateVerdict(**{**values, **changes}, evaluators=list(verdicts))


def live_on(
    repo: Repository,
    ends: Sequence[RoundState | GateVerdict],
    name: str = MODEL,
    days: float = 1.0,
    limit: float | None = None,
    reason: str | None = None,
) -> None:
    """
    End one round after the other, so many days apart, and open the next.

    Args:
        repo: where.
        ends: how each ends; a verdict: rejected by it.
        name: of the model.
        days: that each round takes.
        limit: what the gate allows of a step.
        reason: why those end that are not published.
    """
    for end in ends:
        repo.clock.advance(days=days)
        state = RoundState.REJECTED if isinstance(end, GateVerdict) else end
        if state == RoundState.PUBLISHED:
            grow(repo, 1, name)
        with repo.ctx.database.write() as session:
            model = find_model(session, name, repo.principal("mia", "maintainer"))
            query = select(RoundRow).where(RoundRow.model_id == model.id)
            row = session.scalars(query.order_by(RoundRow.number.desc()).limit(1)).one()
            gate = Gate() if limit is None else Gate(kind="norm", max_relative_norm=limit)
            row.policy = Policy(gate=gate).model_dump(mode="json")
            row.state, row.finished_at = state, repo.clock()
            if state == RoundState.PUBLISHED:
                row.result_number = model.current
            else:
                row.reason = reason
            if isinstance(end, GateVerdict):
                row.gate, row.reason = end.model_dump(mode="json"), reason or end.reason
            session.flush()
            open_next(session, model, repo.clock())
