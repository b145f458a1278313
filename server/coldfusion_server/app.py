"""The web application: built by a function of its context, nothing global."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import cache, partial

from fastapi import APIRouter, FastAPI, Security
from fastapi.security import HTTPBearer
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from coldfusion_server.api import (
    audit,
    bases,
    candidates,
    contributions,
    contributors,
    events,
    fusion,
    health,
    invitations,
    metrics,
    models,
    replays,
    rounds,
    server,
    sign_in,
    signing,
    suites,
    uploads,
    usage,
    waiting,
    webhooks,
)
from coldfusion_server.api.errors import MEDIA_TYPE
from coldfusion_server.api.gate import Gate
from coldfusion_server.api.guessing import Guesses
from coldfusion_server.api.http_metrics import HttpMetrics
from coldfusion_server.api.rate_limits import RateLimits
from coldfusion_server.api.refusals import Refusals
from coldfusion_server.api.responses import add_handlers
from coldfusion_server.dashboard import cards
from coldfusion_server.dashboard.figures import routes as figures
from coldfusion_server.dashboard.install import add_dashboard
from coldfusion_server.events.broker import Broker
from coldfusion_server.hub.install import add_hub, admit
from coldfusion_server.services.context import Context
from coldfusion_shared import __version__
from coldfusion_shared.errors import ColdFusionError
from coldfusion_shared.schemas.common import Problem

DESCRIPTION = """
The Repository of a community that evolves one pretrained model together. Pull the newest base,
finetune it on data that you keep, send back weights; what is accepted is fused into the next base.

Errors are RFC 9457 problem details with a stable `code`. Send tokens as `Authorization: Bearer`.
"""

PROBLEM = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
# For the document alone: the gate has looked at the token before any route is reached.
BEARER = HTTPBearer(auto_error=False, description="a token of this Repository")
ERRORS = {
    "4XX": {"description": "what was wrong, and what to do next", "content": PROBLEM},
    "5XX": {"description": "what failed here", "content": PROBLEM},
}

ROUTES = (
    server,
    models,
    fusion,
    bases,
    cards,
    figures,
    rounds,
    replays,
    candidates,
    contributions,
    contributors,
    uploads,
    suites,
    signing,
    usage,
    invitations,
    sign_in,
    audit,
    waiting,
    health,
    metrics,
    webhooks,
    events,
)

# The reader of events may end what it does; a database that is away is not waited for.
READ_SECONDS = 1


class _Application(FastAPI):
    """Has its gate before everything else: what fails inside is answered through it, too."""

    gate: Callable[[ASGIApp], ASGIApp]

    def build_middleware_stack(self) -> ASGIApp:
        return self.gate(super().build_middleware_stack())


def create_app(context: Context) -> FastAPI:
    """Build the application over `context`; tests build as many as they like."""
    broker = Broker(context.database)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        reader = asyncio.create_task(broker.run())
        yield
        broker.stop()
        # Cancelled while it reads, it would leave a connection behind that nobody closes.
        await asyncio.wait([reader], timeout=READ_SECONDS)
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader

    app = _Application(
        title="coldfusion",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        # Swagger's page would load scripts from elsewhere; the document itself is enough.
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    app.state.context = context
    app.state.broker = broker
    app.state.sights = events.Sights()
    app.state.http_metrics = HttpMetrics()
    app.state.snapshots = metrics.Snapshots()
    refusals = Refusals(context, context.seconds)
    app.state.guesses = Guesses(context.settings.wrong_tokens, context.seconds, refusals.tell)
    app.router.routes.extend(_routes())
    add_handlers(app)
    add_dashboard(app)
    add_hub(app)
    rates = RateLimits(context.settings, context.seconds)
    app.gate = partial(
        Gate,
        context=context,
        rates=rates,
        guesses=app.state.guesses,
        refuse=app.exception_handlers[ColdFusionError],
        admit=admit,
        metrics=app.state.http_metrics,
    )
    return app


@cache
def _routes() -> list[BaseRoute]:
    """Return the API's routes, the same for all applications: to analyse them takes a while."""
    router = APIRouter()
    for module in ROUTES:
        router.include_router(module.router, responses=ERRORS, dependencies=[Security(BEARER)])  # type: ignore[arg-type]
    return router.routes
