"""Events: as a list, and as they happen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated
from weakref import WeakValueDictionary

import anyio
from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import StreamingResponse

from coldfusion_server.api.dependencies import Ctx, Events, Who
from coldfusion_server.events import outbox
from coldfusion_server.events.broker import Broker
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_model
from coldfusion_server.services.tokens import Principal, may, principal_of
from coldfusion_shared.errors import ColdFusionError, ModelNotFound
from coldfusion_shared.schemas.events import Event
from coldfusion_shared.schemas.tokens import Role

router = APIRouter(prefix="/v1/events", tags=["events"])

# These tell of a replay what its published bases tell everybody.
_PUBLISHED = ("replay.published", "model.replayed")

# A stream may outlive its token: whether that is still good, and what it may see, is looked up anew
# after so long, in seconds.
SIGHT_SECONDS = 5.0
# So many events are read at a time, however few of them the caller may see.
BATCH = 500

ModelQuery = Annotated[str | None, Query(max_length=96, description="owner/name; null: all")]


class _Sight:
    """
    What a token's watchers may see; true up to some seconds ago.

    Of two hundred watchers one looks it up: each for itself, all others would wait for the threads.
    """

    def __init__(self, ctx: Context, who: Principal | None) -> None:
        self._ctx, self._who = ctx, who
        self._readable: dict[str | None, bool] = {}
        self._looked = time.monotonic()
        self._looking = asyncio.Lock()

    async def takes_in(self, event: Event | None) -> bool:
        """Return whether the event may be seen; raises `ColdFusionError`: the watcher, no more."""
        if not self._is_known(event):
            async with self._looking:
                if not self._is_known(event):
                    await anyio.to_thread.run_sync(self._look, event)
        return event is not None and _may_see(self._ctx, self._who, event, self._readable)

    def _is_known(self, event: Event | None) -> bool:
        """Return whether no look is due, and the event's model was looked up."""
        if time.monotonic() - self._looked >= SIGHT_SECONDS:
            return False
        return event is None or event.model is None or event.model in self._readable

    def _look(self, event: Event | None) -> None:
        readable = self._readable
        if time.monotonic() - self._looked >= SIGHT_SECONDS:
            readable = {}
            if self._who is not None:
                principal_of(self._ctx, self._who.token_id)
            self._looked = time.monotonic()
        if event is not None:
            _may_know(self._ctx, self._who, event.model, readable)
        # Whole, as soon as it is there: others go by it meanwhile.
        self._readable = readable


class Sights:
    """What those who watch at the moment may see; of equal rights, the same."""

    def __init__(self) -> None:
        """Nobody watches yet."""
        self._of: WeakValueDictionary[str | None, _Sight] = WeakValueDictionary()

    def of(self, ctx: Context, who: Principal | None) -> _Sight:
        """Return that of a token, or of those who have none."""
        token = None if who is None else who.token_id
        found = self._of.get(token)
        if found is None:
            found = self._of[token] = _Sight(ctx, who)
        return found


def _sights(request: Request) -> Sights:
    sights: Sights = request.app.state.sights
    return sights


Seen = Annotated[Sights, Depends(_sights)]


@router.get("")
def list_events(
    ctx: Ctx,
    who: Who,
    model: ModelQuery = None,
    after: Annotated[int, Query(ge=0, le=2**62, description="id of the last one seen")] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> list[Event]:
    """List what happened behind an event, oldest first."""
    found: list[Event] = []
    readable: dict[str | None, bool] = {}
    while len(found) < limit:
        with ctx.database.read() as session:
            events = outbox.after(session, after, BATCH, model)
        if not events:
            break
        # Goes on behind what the caller may not see: an empty list means that there is no more.
        after = events[-1].id
        found += [event for event in events if _may_see(ctx, who, event, readable)]
        if len(events) < BATCH:
            break
    return found[:limit]


@router.get("/stream", response_class=StreamingResponse)
async def stream_events(
    ctx: Ctx,
    who: Who,
    broker: Events,
    sights: Seen,
    model: ModelQuery = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Send events as they happen (server-sent events); Last-Event-ID resumes."""
    given = last_event_id or ""
    after = int(given) if given.isascii() and given.isdigit() and len(given) <= 18 else None
    return StreamingResponse(
        _lines(ctx, broker, sights, who, model, after),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _lines(
    ctx: Context,
    broker: Broker,
    sights: Sights,
    who: Principal | None,
    model: str | None,
    after: int | None,
) -> AsyncIterator[str]:
    sight = sights.of(ctx, who)
    if after is None:
        # Before the first bytes: what happens once a watcher knows that it is connected, it sees.
        after = await broker.newest()
    # The first bytes at once: a watcher then knows that it is connected.
    yield ": connected\n\n"
    async for event in broker.watch(lambda item: model in (None, item.model), after):
        try:
            seen = await sight.takes_in(event)
        except ColdFusionError:
            return  # Whoever comes again is told why.
        if event is None:
            yield ": still here\n\n"
        elif seen:
            yield f"id: {event.id}\nevent: {event.type}\ndata: {event.json_text}\n\n"


def _may_see(
    ctx: Context, who: Principal | None, event: Event, readable: dict[str | None, bool]
) -> bool:
    """Return whether the caller may see the event; a replay's are for those who may see that."""
    of_replay = "replay" in event.data and event.type not in _PUBLISHED
    if of_replay and (who is None or not may(who, Role.EVALUATOR)):
        return False
    return _may_know(ctx, who, event.model, readable)


def _may_know(
    ctx: Context, who: Principal | None, model: str | None, readable: dict[str | None, bool]
) -> bool:
    """Return whether the caller may know of the model; each model is looked up once."""
    if model is None:
        # A suite's name may be of data that only a private model was measured with.
        return who is not None and who.models is None
    if model not in readable:
        try:
            with ctx.database.read() as session:
                find_model(session, model, who)
            readable[model] = True
        except ModelNotFound:
            readable[model] = False
    return readable[model]
