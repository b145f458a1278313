"""Puts the dashboard into an application."""

from __future__ import annotations

from functools import cache

from fastapi import APIRouter, FastAPI
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from coldfusion_server.dashboard import health, lineage, login, sign_in, views, webhooks
from coldfusion_server.dashboard.decisions import views as decisions
from coldfusion_server.dashboard.error_pages import add_error_pages
from coldfusion_server.dashboard.rendering import STATIC, asset
from coldfusion_server.dashboard.shared_parts import SharedParts

FOR_EVER = "public, max-age=31536000, immutable"


def add_dashboard(app: FastAPI) -> None:
    """Add pages, assets and error pages to `app`, which has its API and its handlers already."""
    app.state.shared_parts = SharedParts()
    app.router.routes.extend(_pages())
    app.mount("/static", _Assets(directory=STATIC))
    add_error_pages(app)


@cache
def _pages() -> list[BaseRoute]:
    """Return the pages' routes, the same for all applications: to analyse them takes a while."""
    router = APIRouter()
    router.include_router(views.router)
    router.include_router(lineage.router)
    router.include_router(health.router)
    router.include_router(webhooks.router)
    router.include_router(login.router)
    router.include_router(decisions.router)
    router.include_router(sign_in.router)
    return router.routes


class _Assets(StaticFiles):
    """Files with an ETag; one whose address names its content need never be asked for again."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        asked = f"/static/{path}?{scope['query_string'].decode('latin-1')}"
        current = response.status_code == 200 and asked == asset(path)
        response.headers["Cache-Control"] = FOR_EVER if current else "no-cache"
        return response
