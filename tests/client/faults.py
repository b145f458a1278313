"""A server on raw sockets that fails as networks and stores do: cuts, delays, lies and refusals."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

SLOW_DOWN = "<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


@dataclass
class Asked:
    """One request, its body read only as far as the fault lets it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Fault:
    """
    How one request is answered.

    Attributes:
        status: of the answer; null: the right answer.
        cut: break the connection after so many bytes of the body.
        reset: break it by a reset and not by an orderly end.
        delay: seconds before the answer.
        headers: more of them.
        text: the body of a refusal.
    """

    status: int | None = None
    cut: int | None = None
    reset: bool = False
    delay: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""


class FaultServer:
    """Serves `content` at every path, takes any PUT, and does to each request what `fault` says."""

    def __init__(self, content: bytes, fault: Callable[[Asked], Fault]) -> None:
        self.content, self.fault = content, fault
        self.seen: list[Asked] = []
        self.parts: dict[str, bytes] = {}
        self.pace = 0.0  # seconds for each 16 KiB
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def spans(self) -> list[tuple[int, int]]:
        """The ranges that were asked for."""
        given = [seen.headers.get("range", "") for seen in self.seen]
        found = [re.match(r"bytes=(\d+)-(\d*)", text) for text in given]
        size = len(self.content)
        return [(int(m[1]), min(int(m[2] or size - 1) + 1, size)) for m in found if m]

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        with connection, connection.makefile("rb") as stream:
            try:
                while self._one(connection, stream):
                    pass
            except OSError:
                pass

    def _one(self, connection: socket.socket, stream: IO[bytes]) -> bool:
        line = stream.readline().decode("latin-1")
        if not line:
            return False
        method, target, _ = line.split(" ", 2)
        headers = {}
        while (line := stream.readline().decode("latin-1").strip()) != "":
            name, value = line.split(":", 1)
            headers[name.lower()] = value.strip()
        asked = Asked(method, target, headers)
        self.seen.append(asked)
        fault = self.fault(asked)
        time.sleep(fault.delay)
        if method == "PUT":
            length = int(headers["content-length"])
            wanted = length if fault.cut is None else min(length, fault.cut)
            asked.body = stream.read(wanted)
            if fault.cut is not None:
                return _break(connection, fault)
            if fault.status is None:
                self.parts[target] = asked.body
        return self._answer(connection, asked, fault)

    def _answer(self, connection: socket.socket, asked: Asked, fault: Fault) -> bool:
        status, body, headers = fault.status or 200, fault.text.encode(), dict(fault.headers)
        if fault.status is None and asked.method == "GET":
            body = self.content
            if match := re.match(r"bytes=(\d+)-(\d*)", asked.headers.get("range", "")):
                start, end = int(match[1]), min(int(match[2] or len(body)) + 1, len(body))
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}"
                status, body = 206, body[start:end]
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        sent = body if fault.cut is None else body[: fault.cut]
        for start in range(0, len(sent), 2**14):
            connection.sendall(sent[start : start + 2**14])
            time.sleep(self.pace)
        return True if fault.cut is None else _break(connection, fault)


def _break(connection: socket.socket, fault: Fault) -> bool:
    if fault.reset:
        # Closed with this, a connection ends by a reset.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


@contextmanager
def faulty(content: bytes, fault: Callable[[Asked], Fault]) -> Iterator[FaultServer]:
    """Run a `FaultServer` in threads."""
    server = FaultServer(content, fault)
    threading.Thread(target=server.run, daemon=True).start()
    try:
        yield server
    finally:
        server.socket.shutdown(socket.SHUT_RDWR)
        server.socket.close()
