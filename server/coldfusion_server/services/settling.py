"""What becomes of the newest round, and of what waits in it, when the head goes elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributionRow, ModelRow, RoundRow
from coldfusion_server.services import contributions, ending, late
from coldfusion_server.services.context import Context
from coldfusion_shared.errors import BaseOutdated
from coldfusion_shared.rounds import RoundState


@dataclass
class Outcome:
    """
    What became of what waited.

    Attributes:
        late: ids of what counts otherwise now.
        refused: ids of what is not taken any more.
        cancelled: the number of the round that was under way.
    """

    late: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    cancelled: int | None = None


def settle(
    ctx: Context, session: Session, model: ModelRow, newest: RoundRow, before: int, text: str
) -> Outcome:
    """
    Let the model's newest round follow the head, which has just moved, in the caller's transaction.

    One that is under way ends, since what it makes would hang on the base that is left.

    Args:
        ctx: the service's surroundings.
        session: the transaction.
        model: whose head has moved.
        newest: its newest round, locked since before the move.
        before: number of the base that was the head.
        text: a sentence without its full stop that says where the head went, and why.
    """
    session.flush()
    outcome = _outcome(ctx, session, model, newest, before, text)
    if newest.state == RoundState.OPEN:
        newest.base_number = model.current
    else:
        outcome.cancelled = newest.number
        ending.end_round(ctx, session, newest, RoundState.CANCELLED, reason=text)
    session.flush()
    return outcome


def _outcome(
    ctx: Context, session: Session, model: ModelRow, newest: RoundRow, before: int, text: str
) -> Outcome:
    """Refuse what the policy does not take on the new head, and tell the others what changed."""
    outcome = Outcome()
    # A round under way ends: what it had goes into the one after it.
    number = newest.number + (newest.state != RoundState.OPEN)
    line = replace(late.line_of(session, model, newest), coming=0, round=number)
    old = replace(line, head=before)
    for item in _waiting(session, newest):
        base = item.base_number
        try:
            late.check_in_time(line, base)
        except BaseOutdated as error:
            reason = f"{text}. {error.message}"
            contributions.reject(session, ctx.now(), item, reason, error.hint)
            outcome.refused.append(item.id)
            continue
        if late.expected(old, base) != late.expected(line, base):
            item.reason = f"{text}. {late.prospect(line, base).sentence}"
            contributions.tell(session, ctx.now(), item, "rebased")
            outcome.late.append(item.id)
    return outcome


def _waiting(session: Session, row: RoundRow) -> list[ContributionRow]:
    query = select(ContributionRow).where(
        ContributionRow.round_id == row.id, ContributionRow.state.in_(ending.WAITING)
    )
    return list(session.scalars(query.order_by(ContributionRow.position, ContributionRow.number)))
