"""
The audit log learns where somebody begins to wait for wrong tokens: once for each such beginning.

A row for anybody who asks for it would fill the disk, so an hour has at most `MOST` of them; those
above are counted, and the next row tells how many there were.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock

import structlog

from coldfusion_server.events import audit
from coldfusion_server.services.context import Context
from coldfusion_shared.errors import ColdFusionError

log = structlog.get_logger(__name__)

HOUR = 3600.0
MOST = 60


class Refusals:
    """Writes them into the audit log; safe to use from several threads."""

    def __init__(self, ctx: Context, clock: Callable[[], float]) -> None:
        """
        Begin with none.

        Args:
            ctx: the service's surroundings.
            clock: in seconds.
        """
        self._ctx = ctx
        self._clock = clock
        self._times: deque[float] = deque()
        self._untold = 0
        self._lock = Lock()

    def tell(self, address: str, subject: str | None) -> None:
        """
        Write down that too many wrong tokens or codes came.

        Args:
            address: from where the last one came.
            subject: id of the token or invitation that it was for; null: it had no such form.
        """
        untold = self._take_place()
        if untold is None:
            return
        ctx = self._ctx
        try:
            with ctx.database.write() as session:
                audit.note(
                    session,
                    ctx.now(),
                    audit.VISITOR,
                    "login.refused",
                    subject=subject,
                    address=address,
                    untold_before=untold,
                )
        except ColdFusionError as error:
            # Whoever guesses is told that the guess was wrong, whatever the database says.
            log.warning("refusal is not in the audit log", address=address, why=error.message)

    def _take_place(self) -> int | None:
        """Return how many were not told before this one; null where this one is not told either."""
        with self._lock:
            now = self._clock()
            while self._times and now - self._times[0] > HOUR:
                self._times.popleft()
            if len(self._times) >= MOST:
                self._untold += 1
                return None
            self._times.append(now)
            untold, self._untold = self._untold, 0
            return untold
