"""What was sent to a webhook, tried out and sent again, as its maintainers see it."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import DeliveryRow, WebhookRow
from coldfusion_server.events import audit
from coldfusion_server.events.webhooks.messages import body_of
from coldfusion_server.services import paging
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import searchable
from coldfusion_server.services.tokens import Principal, require_anywhere
from coldfusion_server.services.webhooks import find_webhook
from coldfusion_shared.errors import RateLimited, StateConflict, WebhookNotFound
from coldfusion_shared.event_types import PING
from coldfusion_shared.schemas.common import Page
from coldfusion_shared.schemas.tokens import Role
from coldfusion_shared.schemas.webhooks import Delivery, WebhookFormat
from coldfusion_shared.webhooks import PENDING, DeliveryState

# Pings that wait at a time: whoever tries something out does not need more.
MOST_PINGS = 10


def list_deliveries(
    ctx: Context,
    identity: str,
    principal: Principal | None,
    window: paging.Window,
    state: DeliveryState | None = None,
) -> Page[Delivery]:
    """Return the deliveries of a webhook, the newest first; raises `WebhookNotFound`."""
    who = require_anywhere(principal, Role.MAINTAINER)
    with ctx.database.read() as session:
        row = find_webhook(session, identity, who)
        query = select(DeliveryRow).where(DeliveryRow.webhook_id == row.id)
        if state is not None:
            query = query.where(DeliveryRow.state == state)
        return paging.page(session, query, DeliveryRow.number, window, to_schema)


def get_delivery(
    ctx: Context, identity: str, delivery: str, principal: Principal | None
) -> Delivery:
    """Return one delivery with what is posted; raises `WebhookNotFound`."""
    who = require_anywhere(principal, Role.MAINTAINER)
    with ctx.database.read() as session:
        hook = find_webhook(session, identity, who)
        row = _find(session, hook, delivery)
        body = body_of(row.event, WebhookFormat(hook.format))
        return to_schema(row).model_copy(update={"body": body})


def ping(ctx: Context, identity: str, principal: Principal | None) -> Delivery:
    """
    Send a webhook something to try it out, also to one that is not active.

    Raises:
        WebhookNotFound: there is none of that id, or it is none of the caller's.
        RateLimited: several wait to be sent.
    """
    who = require_anywhere(principal, Role.MAINTAINER)
    with ctx.database.write() as session:
        hook = find_webhook(session, identity, who, lock=True)
        waiting = select(DeliveryRow.number).where(
            DeliveryRow.webhook_id == hook.id,
            DeliveryRow.event_id.is_(None),
            DeliveryRow.state.in_(PENDING),
        )
        if len(session.scalars(waiting.limit(MOST_PINGS)).all()) == MOST_PINGS:
            raise RateLimited(
                f"{MOST_PINGS} pings wait to be sent already.",
                hint="See that a scheduler runs, and what became of the ones before.",
            )
        event = {
            "id": None,
            "type": PING,
            "model": None if hook.model is None else hook.model.name,
            "at": ctx.now().isoformat().replace("+00:00", "Z"),
            "data": {"webhook": hook.id},
        }
        row = DeliveryRow(**values_of(hook, event, ctx.now()))
        session.add(row)
        session.flush()
        return to_schema(row)


def redeliver(ctx: Context, identity: str, delivery: str, principal: Principal | None) -> Delivery:
    """
    Send once more what was delivered or given up, with the same id: a receiver knows it by that.

    Raises:
        WebhookNotFound: there is no such webhook or delivery, or it is none of the caller's.
        StateConflict: it is going to be tried anyway, or the webhook is not active.
    """
    who = require_anywhere(principal, Role.MAINTAINER)
    with ctx.database.write() as session:
        hook = find_webhook(session, identity, who, lock=True)
        row = _find(session, hook, delivery)
        if row.state in PENDING:
            raise StateConflict(f"The delivery {row.id} is {row.state}: it is tried anyway.")
        if not hook.active:
            raise StateConflict(
                f"The webhook {hook.id} is not active, so nothing is sent.",
                hint=f"Make it active first: coldfusion-server webhook resume {hook.id}",
            )
        row.state, row.attempts, row.finished_at = DeliveryState.WAITING, 0, None
        row.next_try_at = ctx.now()
        model = None if hook.model is None else hook.model.name
        audit.note(
            session, ctx.now(), who, "webhook.redelivered", model=model, subject=hook.id,
            delivery=row.id, type=row.event["type"],
        )  # fmt: skip
        session.flush()
        return to_schema(row)


def values_of(hook: WebhookRow, event: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Return the row of an event that is to be sent to a webhook."""
    return {
        "id": f"msg_{secrets.token_hex(12)}",
        "webhook_id": hook.id,
        "event_id": event["id"],
        "event": event,
        "state": DeliveryState.WAITING,
        "attempts": 0,
        "next_try_at": now,
        "created_at": now,
    }


def to_schema(row: DeliveryRow) -> Delivery:
    """Return what the API shows of a delivery."""
    return Delivery(
        id=row.id,
        webhook=row.webhook_id,
        model=None if row.webhook.model is None else row.webhook.model.name,
        event=row.event_id,
        type=row.event["type"],
        state=DeliveryState(row.state),
        attempts=row.attempts,
        next_try_at=row.next_try_at,
        tried_at=row.tried_at,
        status=row.status,
        error=row.error,
        seconds=row.seconds,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


def _find(session: Session, hook: WebhookRow, delivery: str) -> DeliveryRow:
    query = select(DeliveryRow).where(
        DeliveryRow.id == searchable(delivery), DeliveryRow.webhook_id == hook.id
    )
    row = session.scalar(query)
    if row is None:
        raise WebhookNotFound(
            f"The webhook {hook.id} has no delivery {delivery[:40]!r}.",
            hint="They are kept for 30 days.",
        )
    return row
