"""A web server on a socket of its own, in a thread, and peers who write to it byte by byte."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from coldfusion_server.connections import protocol_of
from coldfusion_server.settings import Settings

# Of a busy machine.
WAIT_SECONDS = 120.0


class Web:
    """A running server."""

    def __init__(self, listener: socket.socket, server: uvicorn.Server) -> None:
        self.address = listener.getsockname()
        self.server = server

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self.server.server_state.connections)

    def connect(self, first: bytes = b"") -> Peer:
        """Open a connection and send the first bytes."""
        return Peer(self.address, first)

    def ask(self, raw: bytes) -> bytes:
        """Send one request as it is written, and return all that comes until the server closes."""
        with self.connect(raw) as peer:
            return peer.rest()


class Peer:
    """The other end of a connection."""

    def __init__(self, address: Any, first: bytes) -> None:
        self.socket = socket.create_connection(address, timeout=WAIT_SECONDS)
        self.socket.sendall(first)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, more: bytes) -> None:
        """Send some more bytes."""
        self.socket.sendall(more)

    def answer(self) -> bytes:
        """Return the next answer as far as its length says; what there is if the server closes."""
        found, length = b"", None
        while length is None or len(found) < length:
            block = self._receive()
            if not block:
                break
            found += block
            head, end, _ = found.partition(b"\r\n\r\n")
            said = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            if end:
                length = len(head) + len(end) + int(said[1] if said else 0)
        return found

    def rest(self) -> bytes:
        """Return all that comes until the server closes the connection."""
        found = b""
        while block := self._receive():
            found += block
        return found

    def drip(self, drop: bytes) -> bytes:
        """Send a drop again and again until the server closes; return what it said."""
        found = b""
        self.socket.settimeout(0.05)
        for _ in range(int(WAIT_SECONDS / 0.05)):
            try:
                block = self._received_or(drop)
            except ConnectionError:
                return found
            if block == b"":
                return found
            found += block or b""
        raise AssertionError("the server waits for ever")

    def _received_or(self, drop: bytes) -> bytes | None:
        """Return what has come; null: nothing has, and the drop was sent."""
        try:
            return self.socket.recv(65536)
        except TimeoutError:
            # Where the server has hung up by now, this fails as receiving does.
            self.socket.sendall(drop)
            return None

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(65536)
        except ConnectionError:
            return b""


@contextmanager
def served(app: ASGIApp, settings: Settings) -> Iterator[Web]:
    """Serve `app` as `coldfusion-server up` does."""
    config = uvicorn.Config(
        app,
        http=protocol_of(settings),
        ws="none",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
        # What is idle for 5 seconds would be closed: a test may pause for longer than that.
        timeout_keep_alive=int(WAIT_SECONDS),
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Web(listener, server)
        finally:
            server.should_exit = True
            thread.join(WAIT_SECONDS)
