"""The pages of webhooks: which there are, and what became of what was sent to each."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse

from coldfusion_server.api.dependencies import Ctx, Who
from coldfusion_server.dashboard.rendering import page
from coldfusion_server.dashboard.views import READ
from coldfusion_server.services import deliveries, webhooks
from coldfusion_server.services.paging import Window
from coldfusion_shared.webhooks import DeliveryState

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

SHOWN = 50


@router.api_route("/webhooks", methods=READ)
def list_webhooks(
    request: Request,
    ctx: Ctx,
    who: Who,
    model: Annotated[str | None, Query(max_length=96)] = None,
    part: Literal["webhooks"] | None = None,
) -> HTMLResponse:
    """Show the webhooks that the visitor looks after."""
    found = webhooks.list_webhooks(ctx, who, model)
    template = "parts/webhooks.html" if part else "webhooks.html"
    cursors = {} if model is None else {"model": model}
    return page(request, template, webhooks=found, only=model, cursors=cursors)


@router.api_route("/webhooks/{webhook}", methods=READ)
def show_webhook(
    request: Request,
    ctx: Ctx,
    who: Who,
    webhook: str,
    state: DeliveryState | None = None,
    cursor: str | None = None,
    part: Literal["webhook"] | None = None,
) -> HTMLResponse:
    """Show a webhook and what was sent to it."""
    found = webhooks.get_webhook(ctx, webhook, who)
    sent = deliveries.list_deliveries(ctx, webhook, who, Window(cursor, SHOWN), state)
    template = "parts/webhook.html" if part else "webhook.html"
    given = {"state": state and state.value, "cursor": cursor}
    cursors = {name: value for name, value in given.items() if value}
    return page(
        request, template, webhook=found, sent=sent, state=state, cursors=cursors,
        states=tuple(DeliveryState),
    )  # fmt: skip
