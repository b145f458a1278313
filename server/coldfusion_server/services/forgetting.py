"""
What is told no more after its time: events, and deliveries to webhooks.

The newest event stays for ever, so that no id is given out twice; and what an active webhook has
not taken up yet stays, however old it is.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import DeliveryRow, EventRow, WebhookRow
from coldfusion_server.services.context import Context

# All tries of a delivery take little more than a day.
DELIVERY_DAYS = 30
BATCH = 1000


def count_events(ctx: Context) -> int:
    """Return how many events are past."""
    return _count(ctx, EventRow, _past_events)


def remove_events(ctx: Context) -> int:
    """Remove events that are past; return how many. It may be killed at any point."""
    return _remove(ctx, EventRow.id, _past_events)


def count_deliveries(ctx: Context) -> int:
    """Return how many deliveries are past."""
    return _count(ctx, DeliveryRow, _past_deliveries)


def remove_deliveries(ctx: Context) -> int:
    """Remove deliveries that are past; return how many. It may be killed at any point."""
    return _remove(ctx, DeliveryRow.number, _past_deliveries)


def _past_events(ctx: Context, session: Session) -> ColumnElement[bool]:
    newest = session.scalar(select(func.max(EventRow.id))) or 0
    least = session.scalar(select(func.min(WebhookRow.cursor)).where(WebhookRow.active))
    before = ctx.now() - timedelta(days=ctx.settings.event_days)
    # Only from the beginning on: a gap in between would be passed over without a word.
    kept = session.scalar(
        select(EventRow.id).where(EventRow.at > before).order_by(EventRow.id).limit(1)
    )
    ends = [newest - 1, *([] if least is None else [least]), *([] if kept is None else [kept - 1])]
    return EventRow.id <= min(ends)


def _past_deliveries(ctx: Context, session: Session) -> ColumnElement[bool]:
    return DeliveryRow.created_at <= ctx.now() - timedelta(days=DELIVERY_DAYS)


def _count(ctx: Context, table: Any, past: Any) -> int:
    with ctx.database.read() as session:
        return (
            session.scalar(select(func.count()).select_from(table).where(past(ctx, session))) or 0
        )


def _remove(ctx: Context, key: Any, past: Any) -> int:
    removed = 0
    while done := _remove_some(ctx, key, past):
        removed += done
        ctx.pulse()
    return removed


def _remove_some(ctx: Context, key: Any, past: Any) -> int:
    with ctx.database.write() as session:
        query = select(key).where(past(ctx, session)).order_by(key).limit(BATCH)
        found = session.scalars(query).all()
        if found:
            session.execute(delete(key.class_).where(key.in_(found)))
    return len(found)
