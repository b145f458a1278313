"""
The end of a round: its outcome, what becomes of its contributions, and the next round.

All of it in the caller's transaction, so that no contribution is ever between two rounds.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import CandidateRow, ContributionRow, ModelRow, RoundRow
from coldfusion_server.services import contributions, late, leases, rounds, standing
from coldfusion_server.services.context import Context
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import BaseOutdated
from coldfusion_shared.rounds import RoundState

_S = ContributionState
# What may still come into a base.
WAITING = (_S.DECLARED, _S.COMPLETED, _S.QUARANTINED, _S.ACCEPTED)


def end_round(
    ctx: Context,
    session: Session,
    row: RoundRow,
    target: RoundState,
    lease: leases.Lease | None = None,
    **changes: Any,
) -> RoundRow:
    """
    Take a round to its end, open the next one, and carry into it what still waits.

    What becomes of the contributions that the round had taken, its caller has settled: those
    which are still accepted are carried, too.

    Args:
        ctx: the service's surroundings.
        session: the transaction.
        row: the round.
        target: published, rejected or cancelled.
        lease: what the caller holds, for all that is done by workers.
        changes: further columns of the round to set.

    Returns:
        the round that is open now.
    """
    rounds.advance(session, ctx.now(), row, target, lease, **changes)
    give_up_candidates(session, row)
    model = session.get_one(ModelRow, row.model_id)
    following = rounds.open_next(session, model, ctx.now())
    _carry(ctx, session, model, row, following)
    return following


def give_up_candidates(session: Session, row: RoundRow) -> None:
    """Let the objects of the round's candidates go that have become no base."""
    session.execute(
        update(CandidateRow)
        .where(CandidateRow.round_id == row.id, CandidateRow.base_id.is_(None))
        .values(given_up=True)
    )


def _carry(
    ctx: Context, session: Session, model: ModelRow, row: RoundRow, following: RoundRow
) -> None:
    query = (
        select(ContributionRow)
        .where(ContributionRow.round_id == row.id, ContributionRow.state.in_(WAITING))
        .order_by(ContributionRow.position, ContributionRow.number)
    )
    line = late.line_of(session, model, following)
    position = 0
    for item in session.scalars(query).all():
        try:
            late.check_in_time(line, item.base_number)
        except BaseOutdated as error:
            contributions.reject(session, ctx.now(), item, error.message, error.hint)
            continue
        if item.state == _S.ACCEPTED:
            position += 1
        _carry_one(ctx, session, item, following, position)


def _carry_one(
    ctx: Context, session: Session, item: ContributionRow, following: RoundRow, position: int
) -> None:
    """The order of acceptance stays; what comes later comes behind."""
    item.round_id = following.id
    item.chosen = False
    item.carried += 1
    item.staleness = item.factor = None
    standing.forget(item)
    if item.state == _S.ACCEPTED:
        item.position = position
    session.flush()
    session.refresh(item)
    contributions.tell(session, ctx.now(), item, "carried")
