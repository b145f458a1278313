"""The events table: appended to inside the transaction of the change itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, func, literal, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import EventRow
from coldfusion_shared.schemas.events import Event

# The key of PostgreSQL's advisory lock: any number that nobody else takes.
ONE_AT_A_TIME = 0xC01DF0510


def append(
    session: Session, now: datetime, kind: str, model: str | None, data: dict[str, Any]
) -> None:
    """Add an event of type `kind`, such as ``base.published``, to the caller's transaction."""
    one_at_a_time(session)
    session.add(EventRow(type=kind, model=model, at=now, data=data))


def one_at_a_time(session: Session) -> None:
    """
    Wait until no other transaction has numbers given out that it has not committed yet.

    PostgreSQL gives out ids before it commits: without this a reader who has seen an id would never
    see a smaller one that was committed after it. SQLite has one writer anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(ONE_AT_A_TIME)))


def after(session: Session, last: int, limit: int, model: str | None = None) -> list[Event]:
    """Return the events with ids above `last`, oldest first, `limit` at most."""
    # The number that a watcher sends may be larger than any id, and than the column's type.
    query = select(EventRow).where(EventRow.id > literal(last, BigInteger))
    query = query.order_by(EventRow.id).limit(limit)
    if model is not None:
        query = query.where(EventRow.model == model)
    return [
        Event(id=row.id, type=row.type, model=row.model, at=row.at, data=row.data)
        for row in session.scalars(query)
    ]


def newest(session: Session) -> int:
    """Return the id of the newest event, 0 if there is none."""
    return session.scalar(select(EventRow.id).order_by(EventRow.id.desc()).limit(1)) or 0
