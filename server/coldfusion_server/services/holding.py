"""A lease that is renewed beside the work, where the work may be silent for longer than it."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Thread
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy.orm import Session

from coldfusion_server.services import leases
from coldfusion_server.services.context import Context
from coldfusion_server.services.heartbeat import WorkStopped
from coldfusion_shared.errors import CandidateNotFound, ColdFusionError, LeaseLost

log = structlog.get_logger(__name__)

# A step that says nothing for so long hangs; its lease is left to run out.
SILENCE_SECONDS = 1800.0
# How soon it is seen that the process is to end.
STOP_SECONDS = 0.5


class Holding:
    """
    Renews a lease, and gives the sign of life, in a thread beside the block.

    It is called by the work whenever that moves on, which is how a work that hangs is told: after
    `silence` seconds without a call nothing is renewed any more.
    """

    def __init__(
        self,
        ctx: Context,
        lease: leases.Lease,
        stopped: Callable[[], None] = lambda: None,
        check: Callable[[Session], None] = lambda session: None,
        silence: float = SILENCE_SECONDS,
    ) -> None:
        """
        Hold `lease`, which was just acquired.

        Args:
            ctx: the service's surroundings.
            lease: what to renew.
            stopped: called once the process is to end, while the lease is held. The work may be in
                a step that lasts longer than the process is given to end.
            check: called whenever the lease is renewed; raises `CandidateNotFound` where nobody
                waits for the work any more.
            silence: seconds.
        """
        self.ctx = ctx
        self.lease = lease
        self.stopped = stopped
        self.check = check
        self.silence = silence
        self.moved = time.monotonic()
        self.lost: ColdFusionError | None = None
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
        """Say that the work moves; raises where it is to end: `WorkStopped`, `LeaseLost`, ..."""
        self.ctx.pulse()
        self.moved = time.monotonic()
        if self.lost is not None:
            raise self.lost

    def _renew(self) -> None:
        try:
            self._keep_renewing()
        except WorkStopped:
            # It reaches the work by its own call.
            self._stop()

    def _keep_renewing(self) -> None:
        pause = self.ctx.settings.lease_seconds / 4
        due = time.monotonic() + pause
        while not self.over.wait(min(STOP_SECONDS, pause)) and self.lost is None:
            now = time.monotonic()
            if now - self.moved > self.silence:
                log.error("work hangs", lease=self.lease.key)
                return
            self.ctx.pulse()
            if now >= due:
                due = now + pause
                self._renew_once()

    def _stop(self) -> None:
        try:
            self.stopped()
        except ColdFusionError as error:
            log.warning("stop not noted", lease=self.lease.key, why=error.message)

    def _renew_once(self) -> None:
        try:
            with self.ctx.database.write() as session:
                leases.renew(self.ctx, session, self.lease)
                self.check(session)
        except (LeaseLost, CandidateNotFound) as error:
            self.lost = error
        except ColdFusionError as error:
            # The database is away for a while; there are more renewals than are needed.
            log.warning("lease not renewed", lease=self.lease.key, why=error.message)
