"""The compare-and-swap by which a row with a state goes to another one."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributionRow, ReplayRow, RoundRow
from coldfusion_shared.errors import StateConflict


def swap(
    session: Session,
    row: ContributionRow | ReplayRow | RoundRow,
    target: str,
    name: str,
    **changes: Any,
) -> None:
    """
    Take `row` to the state `target` in the caller's transaction: of two at once, one succeeds.

    Args:
        session: the transaction.
        row: as the caller knows it; afterwards as it is.
        target: where to; whether that may be is for the caller to check.
        name: what people call the row.
        changes: further columns to set.

    Raises:
        StateConflict: it is not in the state any more that the caller knows.
    """
    table: Any = type(row)
    current = row.state
    swapped = session.execute(
        update(table)
        .where(table.id == row.id, table.state == current)
        .values(state=target, **changes)
        .returning(table.id)
    ).first()
    if swapped is None:
        raise StateConflict(f"{name} is not {current} any more.")
    session.refresh(row)
