"""How many contributions a round has in which state, and how many of them are late."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributionRow, ModelRow
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_model, find_round
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.contributions import ContributionState


@dataclass(frozen=True)
class Tally:
    """
    Contributions counted.

    Attributes:
        states: how many there are in each state that there is one in.
        late: how many of all were made from an older base than their round's.
    """

    states: Mapping[ContributionState, int]
    late: int


def of_round(ctx: Context, name: str, number: str, principal: Principal | None) -> Tally:
    """Return how many contributions a round has, in one query over all of them."""
    with ctx.database.read() as session:
        row = find_round(session, find_model(session, name, principal), number)
        late = case((ContributionRow.base_number != row.base_number, 1), else_=0)
        query = (
            select(ContributionRow.state, func.count(), func.sum(late))
            .where(ContributionRow.round_id == row.id)
            .group_by(ContributionRow.state)
        )
        found = session.execute(query).all()
    return Tally(
        {ContributionState(state): count for state, count, _ in found},
        sum(int(behind) for _, _, behind in found),
    )


def by_state(session: Session, *where: ColumnElement[bool]) -> dict[ContributionState, int]:
    """Return how many contributions for which `where` holds are in each state."""
    query = (
        select(ContributionRow.state, func.count())
        .join(ModelRow, ModelRow.id == ContributionRow.model_id)
        .where(*where)
        .group_by(ContributionRow.state)
    )
    return {ContributionState(state): count for state, count in session.execute(query)}
