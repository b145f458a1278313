"""A lease that is renewed beside the work, where the work may be silent for longer than it."""

from __future__ import annotations

import time
from contextlib import suppress
from threading import Event, Thread
from types import TracebackType
from typing import Self

import structlog

from coldfusion_server.services import leases
from coldfusion_server.services.context import Context
from coldfusion_server.services.heartbeat import WorkStopped
from coldfusion_shared.errors import ColdFusionError, LeaseLost

log = structlog.get_logger(__name__)

# A step that says nothing for so long hangs; its lease is left to run out.
SILENCE_SECONDS = 1800.0


class Holding:
    """
    Renews a lease, and gives the sign of life, in a thread beside the block.

    It is called by the work whenever that moves on, which is how a work that hangs is told: after
    `silence` seconds without a call nothing is renewed any more.
    """

    def __init__(self, ctx: Context, lease: leases.Lease, silence: float = SILENCE_SECONDS) -> None:
        """Hold `lease`, which was just acquired."""
        self.ctx = ctx
        self.lease = lease
        self.silence = silence
        self.moved = time.monotonic()
        self.lost: LeaseLost | None = None
        self.over = Event()
        self.thread = Thread(target=self._renew, daemon=True, name="holding")

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.over.set()
        self.thread.join()

    def __call__(self) -> None:
        """Say that the work moves; raises `WorkStopped` or `LeaseLost` where it is to end."""
        self.ctx.pulse()
        self.moved = time.monotonic()
        if self.lost is not None:
            raise self.lost

    def _renew(self) -> None:
        # What the pulse raises is for the work, which it reaches by its own call.
        with suppress(WorkStopped):
            while not self.over.wait(self.ctx.settings.lease_seconds / 4) and self.lost is None:
                if time.monotonic() - self.moved > self.silence:
                    log.error("work hangs", lease=self.lease.key)
                    return
                self.ctx.pulse()
                self._renew_once()

    def _renew_once(self) -> None:
        try:
            with self.ctx.database.write() as session:
                leases.renew(self.ctx, session, self.lease)
        except LeaseLost as error:
            self.lost = error
        except ColdFusionError as error:
            # The database is away for a while; there are more renewals than are needed.
            log.warning("lease not renewed", lease=self.lease.key, why=error.message)
