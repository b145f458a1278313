"""The body of a request as it arrives: in its own time, but not for ever."""

from __future__ import annotations

import time

import anyio
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from coldfusion_server.api.lengths import content_length
from coldfusion_shared.errors import ColdFusionError, TooSlow

# Nobody reads the bodies of these.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# A sender who is silent for so many seconds is gone.
SILENCE_SECONDS = 60.0
# Bytes a second, once as many seconds were waited for: a slow telephone line has ten times as many.
MIN_RATE = 1024
# So much of a refused body is read and dropped; after more the connection is closed.
DRAINED_BYTES = 64 * 2**20


class RequestBody:
    """Hands on a body, gives up a sender who keeps it waiting, and knows what is left unread."""

    def __init__(self, receive: Receive, scope: Scope, part_bytes: int) -> None:
        """
        Look at what the headers say of it.

        Args:
            receive: where it comes from.
            scope: of its request.
            part_bytes: of uploads; a few of them are read to their end although nobody wants them.
        """
        self._receive = receive
        self._length = _length_of(Headers(scope=scope))
        self._ended = self._length == 0
        self._unread = scope["method"] in SAFE_METHODS
        self._drained = max(DRAINED_BYTES, 4 * part_bytes)
        self._arrived = 0
        self._waited = 0.0
        self._given_up = False

    async def receive(self) -> Message:
        """
        Return the next piece; after the last one, wait for the sender to hang up.

        Raises:
            TooSlow: nothing, or next to nothing, has arrived for too long.
        """
        if self._ended or self._unread:
            return await self._receive()
        message = await self._next()
        self._arrived += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        return message

    @property
    def arrived(self) -> int:
        """How many bytes of it were read."""
        return self._arrived

    @property
    def is_endless(self) -> bool:
        """
        Whether nobody should read on.

        What is left of an honest body is read and dropped, because its sender would not see the
        answer before: a connection that is closed in its face is all that it would see.
        """
        if self._given_up:
            return True
        return not self._ended and (self._length is None or self._length > self._drained)

    async def _next(self) -> Message:
        """Wait as long as its pace allows; only waiting counts, not what we do in between."""
        left = SILENCE_SECONDS + self._arrived / MIN_RATE - self._waited
        begun = time.monotonic()
        try:
            with anyio.fail_after(min(left, SILENCE_SECONDS)):
                return await self._receive()
        except TimeoutError:
            self._given_up = True
            raise TooSlow(
                f"Only {self._arrived} bytes of the body have arrived in "
                f"{self._waited + time.monotonic() - begun:.0f} seconds.",
                hint="Send it again, where the line is slow in smaller parts.",
            ) from None
        finally:
            self._waited += time.monotonic() - begun


def _length_of(headers: Headers) -> int | None:
    """Return how long a body is, in bytes; null where that is not said, or nonsense."""
    if "transfer-encoding" in headers:
        return None
    try:
        return content_length(headers) or 0
    except ColdFusionError:
        return None
