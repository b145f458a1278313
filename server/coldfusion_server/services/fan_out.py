"""
From the outbox to the webhooks: every event gets a delivery for each webhook that it is for.

The deliveries are made in the transaction that moves the webhooks' cursors on. So a process may be
killed at any line, and any number of them may be at it: each event is taken up exactly once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session, load_only

from coldfusion_server.db.tables import DeliveryRow, EventRow, ModelRow, WebhookRow
from coldfusion_server.events import outbox
from coldfusion_server.faults import fault_point
from coldfusion_server.services import deliveries
from coldfusion_server.services.context import Context
from coldfusion_shared.event_types import fits
from coldfusion_shared.schemas.events import Event

# Events in one transaction, and deliveries, from which on it takes no further event: with SQLite
# nobody else writes meanwhile.
BATCH = 200
MOST_DELIVERIES = 500

# Of each model the webhooks; null: those of all public ones.
_Hooks = Mapping[int | None, Sequence[WebhookRow]]


def fan_out(ctx: Context) -> bool:
    """Take up the next events; return whether there were any."""
    with ctx.database.read() as session:
        if _behind(session) is None:
            return False
    with ctx.database.write() as session:
        hooks = session.scalars(
            select(WebhookRow)
            .options(load_only(WebhookRow.model_id, WebhookRow.events, WebhookRow.cursor))
            .where(WebhookRow.active)
            .order_by(WebhookRow.id)
            .with_for_update(of=WebhookRow)
        ).all()
        if not hooks:
            return False
        events = outbox.after(session, min(hook.cursor for hook in hooks), BATCH)
        if not events:
            return False
        last = _add_some(ctx, session, hooks, events)
        for hook in hooks:
            hook.cursor = max(hook.cursor, last)
        fault_point(ctx.settings, "webhook.fanning")
    fault_point(ctx.settings, "webhook.fanned")
    return True


def _behind(session: Session) -> int | None:
    """Return the cursor that is farthest behind, null if none is."""
    least = session.scalar(select(func.min(WebhookRow.cursor)).where(WebhookRow.active))
    if (
        least is None
        or session.scalar(select(func.max(EventRow.id)).where(EventRow.id > least)) is None
    ):
        return None
    return int(least)


def _add_some(
    ctx: Context, session: Session, hooks: Sequence[WebhookRow], events: Sequence[Event]
) -> int:
    """Add the deliveries of the events, or of the first ones; return the last event taken up."""
    models, by_model, now = _models(session, events), defaultdict(list), ctx.now()
    for hook in hooks:
        by_model[hook.model_id].append(hook)
    rows, last = [], 0
    for event in events:
        told = event.model_dump(mode="json")
        rows += [deliveries.values_of(hook, told, now) for hook in _for(event, by_model, models)]
        last = event.id
        if len(rows) >= MOST_DELIVERIES:
            break
    if rows:
        session.execute(insert(DeliveryRow), rows)
    return last


def _models(session: Session, events: Sequence[Event]) -> dict[str, tuple[int, bool]]:
    """Return id, and whether it is public, of each model that the events are of."""
    names = {event.model for event in events if event.model is not None}
    query = select(ModelRow.name, ModelRow.id, ModelRow.public).where(ModelRow.name.in_(names))
    return {name: (number, public) for name, number, public in session.execute(query)}


def _for(
    event: Event, hooks: _Hooks, models: Mapping[str, tuple[int, bool]]
) -> Iterator[WebhookRow]:
    """Yield the webhooks that the event is for; a private model's are its own alone."""
    number, is_public = (None, True) if event.model is None else models.get(event.model, (0, False))
    found = [] if number is None else hooks.get(number, [])
    for hook in [*found, *(hooks.get(None, []) if is_public else [])]:
        if event.id > hook.cursor and any(fits(pattern, event.type) for pattern in hook.events):
            yield hook
