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
from coldfusion_server.services.lookup import find_model, readable_names
from coldfusion_server.services.tokens import Principal, may, principal_of
from coldfusion_shared.errors import ColdFusionError, EventsGone, ModelNotFound
from coldfusion_shared.event_types import RESET
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

# A watcher that has missed more is not sent it: to ask for the present state is quicker.
MOST_MISSED = 10_000
_GONE = {
    "gone": "it is so long ago that what followed is not kept any more",
    "ahead": "it has not happened, as far as this Repository knows; a backup was put back, perhaps",
}

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
    """
    List what happened behind an event, oldest first; 0: from the first one on that is kept.

    Of one that is not kept any more, or has never been, it is 410: what happened since then cannot
    be told.
    """
    with ctx.database.read() as session:
        span = outbox.span(session)
    why = span.why_not_behind(after)
    if why is not None:
        raise EventsGone(
            f"There is no going on from event {after}: {_GONE[why]}.",
            hint=f"Ask for the present state of what you watch, then go on from {span.newest}.",
        )
    found: list[Event] = []
    readable: dict[str | None, bool] = {}
    # Else how long it takes would tell that there is such a model, and what happens to it.
    if model is not None and not _may_know(ctx, who, model, readable):
        return found
    while len(found) < limit:
        with ctx.database.read() as session:
            events = outbox.after(session, after, BATCH, model, readable_names(who))
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
    """
    Send events as they happen (server-sent events); Last-Event-ID resumes.

    Where it cannot be gone on from there, the first event is `events.reset`: ask for the present
    state anew; what happens from now on follows.
    """
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
    # The first bytes at once: a watcher then knows that it is connected. And from where on, as
    # browsers understand an id without data: cut off before the first event, it misses none.
    yield f": connected\nid: {after}\n\n"
    reset = await anyio.to_thread.run_sync(_reset, ctx, after)
    if reset is not None:
        yield _told(reset)
        after = reset.id
    async for event in broker.watch(lambda item: model in (None, item.model), after):
        try:
            seen = await sight.takes_in(event)
        except ColdFusionError:
            return  # Whoever comes again is told why.
        if event is None:
            yield ": still here\n\n"
        elif seen:
            yield _told(event)


def _told(event: Event) -> str:
    return f"id: {event.id}\nevent: {event.type}\ndata: {event.json_text}\n\n"


def _reset(ctx: Context, after: int) -> Event | None:
    """Return what a watcher is told that cannot be sent what it has missed; null: it can."""
    with ctx.database.read() as session:
        span = outbox.span(session)
    why = span.why_not_behind(after)
    if why is None and span.newest - after > MOST_MISSED:
        why = "far"
    if why is None:
        return None
    data = {"after": after, "why": why, "oldest": span.oldest, "newest": span.newest}
    return Event(id=span.newest, type=RESET, model=None, at=ctx.now(), data=data)


def _may_see(
    ctx: Context, who: Principal | None, event: Event, readable: dict[str | None, bool]
) -> bool:
    """Return whether the caller may see the event; some are for evaluators, or maintainers."""
    of_replay = "replay" in event.data and event.type not in _PUBLISHED
    if of_replay and (who is None or not may(who, Role.EVALUATOR)):
        return False
    if event.type.startswith("webhook.") and not _maintains(who, event.model):
        return False
    return _may_know(ctx, who, event.model, readable)


def _maintains(who: Principal | None, model: str | None) -> bool:
    """Return whether the caller looks after the webhooks of the model; null: of no model's."""
    if who is None:
        return False
    return may(who, Role.ADMIN) if model is None else may(who, Role.MAINTAINER, model)


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
