"""Webhooks and their deliveries; for maintainers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from coldfusion_server.api.dependencies import Ctx, Who, WindowQuery
from coldfusion_server.services import deliveries, webhooks
from coldfusion_shared.schemas.common import Page
from coldfusion_shared.schemas.webhooks import (
    Delivery,
    Webhook,
    WebhookChange,
    WebhookRequest,
    WebhookSecret,
)
from coldfusion_shared.webhooks import DeliveryState

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


@router.get("")
def list_webhooks(
    ctx: Ctx,
    who: Who,
    model: Annotated[str | None, Query(max_length=96, description="owner/name; null: all")] = None,
) -> list[Webhook]:
    """List the webhooks that the caller looks after, the oldest first."""
    return webhooks.list_webhooks(ctx, who, model)


@router.post("", status_code=201)
def create_webhook(ctx: Ctx, who: Who, wanted: WebhookRequest) -> WebhookSecret:
    """Make a webhook; its secret is shown this once."""
    return webhooks.create_webhook(ctx, wanted, who)


@router.get("/{webhook}")
def get_webhook(ctx: Ctx, who: Who, webhook: str) -> Webhook:
    """Return one webhook."""
    return webhooks.get_webhook(ctx, webhook, who)


@router.patch("/{webhook}")
def change_webhook(ctx: Ctx, who: Who, webhook: str, wanted: WebhookChange) -> Webhook:
    """Change some of a webhook; what is left out stays."""
    return webhooks.change_webhook(ctx, webhook, wanted, who)


@router.delete("/{webhook}", status_code=204)
def delete_webhook(ctx: Ctx, who: Who, webhook: str) -> None:
    """Delete a webhook and what was told of its deliveries."""
    webhooks.delete_webhook(ctx, webhook, who)


@router.post("/{webhook}/rotate")
def rotate_secret(ctx: Ctx, who: Who, webhook: str) -> WebhookSecret:
    """Give a webhook a new secret, shown this once; for a day the one before signs, too."""
    return webhooks.rotate_secret(ctx, webhook, who)


@router.post("/{webhook}/ping", status_code=202)
def ping(ctx: Ctx, who: Who, webhook: str) -> Delivery:
    """Send `webhook.ping`, tried once; also to a webhook that is not active."""
    return deliveries.ping(ctx, webhook, who)


@router.get("/{webhook}/deliveries")
def list_deliveries(
    ctx: Ctx,
    who: Who,
    webhook: str,
    window: WindowQuery,
    state: Annotated[DeliveryState | None, Query(description="null: all")] = None,
) -> Page[Delivery]:
    """List what was sent and what is to be, the newest first."""
    return deliveries.list_deliveries(ctx, webhook, who, window, state)


@router.get("/{webhook}/deliveries/{delivery}")
def get_delivery(ctx: Ctx, who: Who, webhook: str, delivery: str) -> Delivery:
    """Return one delivery with what is posted."""
    return deliveries.get_delivery(ctx, webhook, delivery, who)


@router.post("/{webhook}/deliveries/{delivery}/redeliver", status_code=202)
def redeliver(ctx: Ctx, who: Who, webhook: str, delivery: str) -> Delivery:
    """Send once more what was delivered or given up, with the same id."""
    return deliveries.redeliver(ctx, webhook, delivery, who)
