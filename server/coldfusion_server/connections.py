"""
Connections of the web server: those that wait for what never comes are closed.

uvicorn gives a request's head all the time there is, and an answer's reader, too. How long a body
may take is the gate's business, which can still answer.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import h11
import structlog
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from coldfusion_server.api.crowd import Crowd, neighbourhood
from coldfusion_server.api.request_body import MIN_RATE
from coldfusion_server.settings import Settings

log = structlog.get_logger("coldfusion.http")

# For the head of a request, from the connection's begin or from the answer before.
HEAD_SECONDS = 20.0
# For the next bytes of an answer to be taken. The system's own buffer has to drain before that, and
# on a slow line it takes a minute.
STALL_SECONDS = 300.0


def protocol_of(settings: Settings) -> Any:
    """Return what uvicorn makes of each connection, for ``Config(http=...)``."""
    # Proxies bring everybody's requests; the gate knows whose they are.
    trusted = ProxyHeadersMiddleware(_nothing, settings.trusted_proxies).trusted_hosts
    return partial(PatientProtocol, crowd=Crowd(settings.address_requests), trusted=trusted)


class PatientProtocol(H11Protocol):
    """HTTP/1.1 for peers who may be slow, but not for ever, and who may be many, but not all."""

    def __init__(self, *args: Any, crowd: Crowd, trusted: Any, **more: Any) -> None:
        """Wait for a connection; `crowd` counts those of all but the `trusted` addresses."""
        super().__init__(*args, **more)
        self.crowd, self.trusted = crowd, trusted
        self._address: str | None = None
        self._head: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._arrived = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, unless the address has too many connections."""
        super().connection_made(transport)
        host = self.client[0] if self.client else ""
        if host not in self.trusted:
            address = neighbourhood(host)
            if not self.crowd.enter(address):
                log.warning("too many connections", address=address)
                transport.abort()
                return
            self._address = address
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back the place."""
        for timer in (self._head, self._stall):
            if timer is not None:
                timer.cancel()
        if self._address is not None:
            self.crowd.leave(self._address)
            self._address = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what arrives."""
        self._arrived += len(data)
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Give the next request its time."""
        self._await_head()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Give the reader of an answer some time."""
        super().pause_writing()
        self._stall = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the reader has taken what there was."""
        if self._stall is not None:
            self._stall.cancel()
        super().resume_writing()

    def _await_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
        self._arrived = 0
        self._head = self.loop.call_later(HEAD_SECONDS, self._end_waiting)

    def _end_waiting(self) -> None:
        """End a connection without a request, unless what an answer did not wait for goes on."""
        if self.cycle is not None and not self.cycle.response_complete:
            return
        unread = self.conn.their_state is h11.SEND_BODY
        if unread and self._arrived >= MIN_RATE * HEAD_SECONDS:
            self._await_head()
        else:
            self.transport.abort()


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    """Stand where an application is asked for."""
