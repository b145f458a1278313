"""The page that tells how the Repository is doing; for those who look after all of it."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from coldfusion_server.api.dependencies import Ctx, Events, Who
from coldfusion_server.dashboard.rendering import page
from coldfusion_server.dashboard.views import READ
from coldfusion_server.services import health_numbers

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.api_route("/health", methods=READ)
def health(
    request: Request,
    ctx: Ctx,
    who: Who,
    broker: Events,
    part: Literal["work", "store"] | None = None,
) -> HTMLResponse:
    """Show queues, leases, failures and storage."""
    values: dict[str, Any] = {}
    if part in (None, "work"):
        values["work"] = health_numbers.work(ctx, who, broker.watchers, broker.last)
    if part in (None, "store"):
        values["storage"] = health_numbers.storage(ctx, who)
        values["database"] = health_numbers.database(ctx, who)
        values["looks"] = health_numbers.looks(ctx, who)
    template = f"parts/health_{part}.html" if part else "health.html"
    return page(request, template, **values)
