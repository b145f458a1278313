"""One reader of the events table for all that watch this process; each watcher has a queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import anyio
import structlog

from coldfusion_server.db.database import Database
from coldfusion_server.events import outbox
from coldfusion_shared.errors import ColdFusionError
from coldfusion_shared.schemas.events import Event

POLL_SECONDS = 0.25
# A watcher that falls this far behind is cut off; it comes back and resumes by its last id.
QUEUE_LENGTH = 1000
# Proxies cut connections on which nothing is sent for long, so silence is broken.
QUIET_SECONDS = 15
BATCH = 500

log = structlog.get_logger(__name__)


class Broker:
    """Reads new events, also those of other processes, and hands each to every watcher."""

    def __init__(self, database: Database) -> None:
        """Serve the events of `database`; `run` has to be running."""
        self.database = database
        self.last = 0
        self.queues: set[asyncio.Queue[Event | None]] = set()
        # Set once `last` is known: what happens from then on is handed out.
        self.begun = asyncio.Event()
        self.stopped = False

    @property
    def watchers(self) -> int:
        """How many watch this process."""
        return len(self.queues)

    async def run(self) -> None:
        """Read and hand out until cancelled, or stopped: then a read under way ends first."""
        while not self.stopped:
            with suppress(ColdFusionError):  # A database that is away comes back.
                self.last = await anyio.to_thread.run_sync(self._newest)
                self.begun.set()
                break
            await asyncio.sleep(POLL_SECONDS)
        while not self.stopped:
            try:
                for event in await anyio.to_thread.run_sync(self._read):
                    self._hand_out(event)
            except ColdFusionError as error:
                log.warning("events cannot be read", error=error.message)
            await asyncio.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End all streams, so that a server can shut down while somebody watches."""
        self.stopped = True
        self.begun.set()
        for queue in list(self.queues):
            self._end(queue)

    async def newest(self) -> int:
        """Return the id of the newest event; right after the start `last` is not known yet."""
        return await anyio.to_thread.run_sync(self._newest)

    async def watch(
        self, wanted: Callable[[Event], bool], after: int | None
    ) -> AsyncIterator[Event | None]:
        """
        Yield events for which `wanted` is true, until the server stops; null when it is quiet.

        Args:
            wanted: chooses events.
            after: resume behind the event of this id; null begins with what happens from now on.
        """
        queue: asyncio.Queue[Event | None] = asyncio.Queue(QUEUE_LENGTH)
        self.queues.add(queue)
        try:
            last = await self.newest() if after is None else after
            # What happens between a look of ours and the reader's first would be missed by both.
            await self.begun.wait()
            while missed := await anyio.to_thread.run_sync(self._read_after, last):
                for event in missed:
                    last = event.id
                    if wanted(event):
                        yield event
            while not self.stopped:
                try:
                    event_or_end = await asyncio.wait_for(queue.get(), QUIET_SECONDS)
                except TimeoutError:
                    yield None
                    continue
                if event_or_end is None:
                    return
                if event_or_end.id > last and wanted(event_or_end):
                    yield event_or_end
        finally:
            self.queues.discard(queue)

    def _hand_out(self, event: Event) -> None:
        self.last = event.id
        for queue in list(self.queues):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._end(queue)

    def _end(self, queue: asyncio.Queue[Event | None]) -> None:
        self.queues.discard(queue)
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)

    def _newest(self) -> int:
        with self.database.read() as session:
            return outbox.newest(session)

    def _read(self) -> list[Event]:
        return self._read_after(self.last)

    def _read_after(self, last: int) -> list[Event]:
        with self.database.read() as session:
            return outbox.after(session, last, BATCH)
