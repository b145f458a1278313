"""The events table: appended to inside the transaction of the change itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Select, func, literal, or_, select
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


def after(
    session: Session,
    last: int,
    limit: int,
    model: str | None = None,
    among: Select[str] | None = None,
) -> list[Event]:
    """
    Return the events with ids above `last`, oldest first.

    Args:
        session: the transaction.
        last: the id.
        limit: how many, at most.
        model: of this one alone; null: of all, and of none.
        among: names of models, of which alone it may be, or of none; null: of all.
    """
    # The number that a watcher sends may be larger than any id, and than the column's type.
    query = select(EventRow).where(EventRow.id > literal(last, BigInteger))
    query = query.order_by(EventRow.id).limit(limit)
    if model is not None:
        query = query.where(EventRow.model == model)
    if among is not None:
        query = query.where(or_(EventRow.model.is_(None), EventRow.model.in_(among)))
    return [
        Event(id=row.id, type=row.type, model=row.model, at=row.at, data=row.data)
        for row in session.scalars(query)
    ]


def newest(session: Session) -> int:
    """Return the id of the newest event, 0 if there is none."""
    return session.scalar(select(EventRow.id).order_by(EventRow.id.desc()).limit(1)) or 0


@dataclass(frozen=True)
class Span:
    """
    Which events there are.

    Attributes:
        oldest: id of the first one that is kept; 0: there is none.
        newest: id of the last one; 0: there is none.
    """

    oldest: int
    newest: int

    def why_not_behind(self, last: int) -> str | None:
        """
        Return why nobody can go on behind the event of that id: ``gone``, ``ahead``; null: can.

        The first one that was is behind 0, whether or not it is kept. Ids are skipped where a
        transaction was given up, so who has seen one, and the next one is kept, may go on.
        """
        if last > self.newest:
            return "ahead"
        return "gone" if 0 < last < self.oldest - 1 else None


def span(session: Session) -> Span:
    """Return which events there are."""
    oldest, last = session.execute(select(func.min(EventRow.id), func.max(EventRow.id))).one()
    return Span(oldest or 0, last or 0)
