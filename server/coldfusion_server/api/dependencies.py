"""What routes ask for, so that their signatures stay short."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query, Request

from coldfusion_server.api.addresses import address_of
from coldfusion_server.api.guessing import Guesses
from coldfusion_server.events.broker import Broker
from coldfusion_server.services.context import Context
from coldfusion_server.services.paging import MAX_LIMIT, Window
from coldfusion_server.services.tokens import Principal


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def _broker(request: Request) -> Broker:
    broker: Broker = request.app.state.broker
    return broker


def _guesses(request: Request) -> Guesses:
    guesses: Guesses = request.app.state.guesses
    return guesses


def _address(request: Request) -> str:
    return address_of(request.scope)


def _principal(request: Request) -> Principal | None:
    principal: Principal | None = request.state.principal
    return principal


def _model_name(
    owner: Annotated[str, Path(max_length=96, examples=["demo"])],
    name: Annotated[str, Path(max_length=96, examples=["minilm"])],
) -> str:
    return f"{owner}/{name}"


def _window(
    cursor: Annotated[str | None, Query(description="next_cursor of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
) -> Window:
    return Window(cursor, limit)


def base_url(request: Request) -> str:
    """Return the URL under which this client reaches the server, without a slash at the end."""
    configured = _context(request).settings.public_url
    return (configured or str(request.base_url)).rstrip("/")


Ctx = Annotated[Context, Depends(_context)]
Events = Annotated[Broker, Depends(_broker)]
Guessing = Annotated[Guesses, Depends(_guesses)]
Address = Annotated[str, Depends(_address)]
Who = Annotated[Principal | None, Depends(_principal)]
ModelPath = Annotated[str, Depends(_model_name)]
WindowQuery = Annotated[Window, Depends(_window)]
BaseUrl = Annotated[str, Depends(base_url)]
