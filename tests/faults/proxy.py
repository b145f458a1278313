"""
A proxy between two of our programs, on a thread, that fails as networks and stores do.

It relays HTTP/1.1 as it comes, counts bodies, and can slow them down or hold them back at an exact
number of bytes; a rule of the test's says for each request what goes wrong with it.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO
from urllib.parse import urlsplit

SLOW_DOWN = "<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
BLOCK_BYTES = 2**16
# What is shorter is no model's bytes: it passes the gates uncounted.
GATED_BYTES = 2**16
# Nothing of the tests is silent for longer, except where a rule or the gate holds it back.
SILENCE_SECONDS = 90


@dataclass(frozen=True)
class Fault:
    """
    What goes wrong with one request.

    Attributes:
        status: answered by the proxy itself, after it has read the body.
        headers: of that answer.
        text: body of that answer.
        early: answer before the body is read, and close the connection.
        delay: seconds before the request goes on.
        cut_sent: break both connections after so many bytes of the request's body.
        cut_answer: break them after so many bytes of the answer's body.
        reset: break them by a reset and not by an orderly end.
        shorten: give the answer only so many bytes, and the length that fits them.
        garble_sent: the byte of the request's body that arrives changed.
        garble_answer: the byte of the answer's body that arrives changed.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    early: bool = False
    delay: float = 0.0
    cut_sent: int | None = None
    cut_answer: int | None = None
    reset: bool = False
    shorten: int | None = None
    garble_sent: int | None = None
    garble_answer: int | None = None


@dataclass
class Asked:
    """One request as it passed, and the status that it was answered with; 0 while it has none."""

    number: int
    method: str
    target: str
    headers: dict[str, str]
    upstream: int
    answered: int = 0

    @property
    def length(self) -> int:
        """Bytes of its body."""
        return int(self.headers.get("content-length", 0))


Rule = Callable[[Asked], Fault | None]


class Broken(Exception):
    """The two connections of a request end here."""


class Gate:
    """Lets the bytes of bodies pass: so many, so fast, or as they like."""

    def __init__(self) -> None:
        """Hold nothing back."""
        self.rate: float | None = None  # bytes a second
        self._left: int | None = None
        self._next = 0.0
        self._changed = threading.Condition()
        self.passed = 0
        self.closed = threading.Event()  # nothing more may pass by now

    def allow(self, count: int | None) -> None:
        """Let `count` more bytes pass, and hold back what comes then; null: all."""
        with self._changed:
            self._left = count
            self.closed.clear()
            self._changed.notify_all()

    def take(self, wanted: int, alive: Callable[[], bool]) -> int:
        """Wait until some of `wanted` bytes may pass, and return how many."""
        with self._changed:
            while self._left == 0:
                self.closed.set()
                self._changed.wait(0.1)
                if not alive():
                    raise Broken
            taken = wanted if self._left is None else min(wanted, self._left)
            if self._left is not None:
                self._left -= taken
            self.passed += taken
            pause = self._pause(taken)
        time.sleep(pause)
        return taken

    def _pause(self, taken: int) -> float:
        if self.rate is None:
            return 0.0
        now = time.monotonic()
        self._next = max(self._next, now) + taken / self.rate
        return self._next - now


class Proxy:
    """
    Listens on a port of its own, and sends each request on to one of `upstreams`, in turn.

    Attributes:
        rule: says what goes wrong with a request.
        sent, answers: the gates of the requests' and of the answers' bodies, the long ones.
        free: where all others pass.
        asked: the requests so far.
        host: put in the Host header's place, for a request that was signed for another address.
    """

    def __init__(self, *upstreams: str, host: str | None = None) -> None:
        """Listen, but do not serve yet."""
        self.upstreams = [_address(url) for url in upstreams]
        self.host = host
        self.rule: Rule = lambda asked: None
        self.sent, self.answers, self.free = Gate(), Gate(), Gate()
        self.asked: list[Asked] = []
        self._open: set[socket.socket] = set()
        self._lock, self._ruling = threading.Lock(), threading.Lock()
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=256)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def run(self) -> None:
        """Serve until the listening socket is closed."""
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def drop(self) -> None:
        """Break all connections that are open now."""
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def _serve(self, client: socket.socket) -> None:
        # Who is killed may leave half a line.
        broken = (OSError, Broken, ValueError, IndexError)
        with suppress(*broken), client, client.makefile("rb") as stream:
            client.settimeout(SILENCE_SECONDS)
            self._keep(client)
            upstreams: dict[int, tuple[socket.socket, IO[bytes]]] = {}
            try:
                while self._one(client, stream, upstreams):
                    pass
            finally:
                self._forget(client)
                for number in list(upstreams):
                    self._close(*upstreams.pop(number))

    def _one(
        self,
        client: socket.socket,
        stream: IO[bytes],
        upstreams: dict[int, tuple[socket.socket, IO[bytes]]],
    ) -> bool:
        """Relay one request and its answer; return whether another may follow."""
        asked = self._read_request(stream)
        if asked is None:
            return False
        # Rules count, and requests come in many threads.
        with self._ruling:
            fault = self.rule(asked) or Fault()
        time.sleep(fault.delay)
        if fault.status is not None:
            return self._answer(client, stream, asked, fault)
        if asked.upstream in upstreams and _is_over(upstreams[asked.upstream][0]):
            self._close(*upstreams.pop(asked.upstream))
        if asked.upstream not in upstreams:
            connection = socket.create_connection(self.upstreams[asked.upstream], timeout=10)
            connection.settimeout(SILENCE_SECONDS)
            self._keep(connection)
            upstreams[asked.upstream] = connection, connection.makefile("rb")
        connection, answers = upstreams[asked.upstream]
        relay = _Relay(self, client, connection, fault, asked)
        relay.request(stream)
        return relay.answer(answers)

    def _read_request(self, stream: IO[bytes]) -> Asked | None:
        line = stream.readline().decode("latin-1")
        if not line.strip():
            return None
        method, target, _ = line.split(" ", 2)
        headers = _headers(stream)
        with self._lock:
            number = len(self.asked)
            asked = Asked(number, method, target, headers, number % len(self.upstreams))
            self.asked.append(asked)
        return asked

    def _answer(self, client: socket.socket, stream: IO[bytes], asked: Asked, fault: Fault) -> bool:
        if not fault.early:
            _continue(client, asked)
            left = asked.length
            while left and (block := stream.read(min(left, BLOCK_BYTES))):
                left -= self.sent.take(len(block), lambda: True)
        assert fault.status is not None
        body = fault.text.encode()
        lines = [f"HTTP/1.1 {fault.status} X", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in fault.headers.items()]
        lines += ["Connection: close"] * fault.early
        asked.answered = fault.status
        client.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        if fault.early:
            # Read what is on its way, or the answer would be lost in a reset.
            client.shutdown(socket.SHUT_WR)
            client.settimeout(1)
            with suppress(OSError):
                while client.recv(BLOCK_BYTES):
                    pass
        return not fault.early

    def _keep(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)

    def _forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)

    def _close(self, connection: socket.socket, answers: IO[bytes]) -> None:
        self._forget(connection)
        answers.close()
        connection.close()

    def is_open(self, connection: socket.socket) -> bool:
        """Return whether nobody has dropped it."""
        with self._lock:
            return connection in self._open


class _Relay:
    """One request to its upstream, and the answer back."""

    def __init__(
        self,
        proxy: Proxy,
        client: socket.socket,
        upstream: socket.socket,
        fault: Fault,
        asked: Asked,
    ) -> None:
        self.proxy, self.client, self.upstream = proxy, client, upstream
        self.fault, self.asked = fault, asked

    def request(self, stream: IO[bytes]) -> None:
        asked = self.asked
        headers = {name: value for name, value in asked.headers.items() if name != "expect"}
        if self.proxy.host is not None:
            headers["host"] = self.proxy.host
        lines = [f"{asked.method} {asked.target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.upstream.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        _continue(self.client, asked)
        # Where the upstream does not want all of it, it says so in its answer.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._body(
                _read_exactly(stream, asked.length),
                self.upstream,
                self.proxy.sent if asked.length >= GATED_BYTES else self.proxy.free,
                self.fault.cut_sent,
                self.fault.garble_sent,
            )

    def answer(self, answers: IO[bytes]) -> bool:
        line = answers.readline()
        if not line:
            raise Broken
        headers, status = _headers(answers), int(line.split()[1])
        body = _answer_body(answers, headers, self.asked.method, status)
        if self.fault.shorten is not None:
            whole = b"".join(body)[: self.fault.shorten]
            headers.pop("transfer-encoding", None)
            headers["content-length"] = str(len(whole))
            body = iter([whole])
        self.asked.answered = status
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        self.client.sendall(line + "".join([*lines, "\r\n"]).encode("latin-1"))
        long, fault = int(headers.get("content-length", 0)) >= GATED_BYTES, self.fault
        gate = self.proxy.answers if long else self.proxy.free
        self._body(body, self.client, gate, fault.cut_answer, fault.garble_answer)
        ends = "content-length" not in headers and "transfer-encoding" not in headers
        closing = headers.get("connection", "").lower() == "close"
        return not closing and not (ends and status not in (100, 204, 304))

    def _body(
        self,
        blocks: Iterator[bytes],
        target: socket.socket,
        gate: Gate,
        cut: int | None,
        garble: int | None,
    ) -> None:
        done = 0
        if cut == 0:
            self._break()
        for block in blocks:
            if garble is not None and done <= garble < done + len(block):
                changed = bytearray(block)
                changed[garble - done] ^= 0x55
                block = bytes(changed)
            view = memoryview(block)
            while view:
                wanted = len(view) if cut is None else min(len(view), cut - done)
                passed = gate.take(wanted, lambda: self.proxy.is_open(self.client))
                target.sendall(view[:passed])
                view, done = view[passed:], done + passed
                if done == cut:
                    self._break()

    def _break(self) -> None:
        if self.fault.reset:
            for connection in (self.client, self.upstream):
                # Closed with this, a connection ends by a reset.
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        raise Broken


def _is_over(upstream: socket.socket) -> bool:
    """Return whether an idle connection was ended; nothing else makes it readable."""
    return bool(select.select([upstream], [], [], 0)[0])


def _continue(client: socket.socket, asked: Asked) -> None:
    """Say in the upstream's place that the body may come; the header is not signed."""
    if asked.headers.get("expect", "").lower() == "100-continue":
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def _headers(stream: IO[bytes]) -> dict[str, str]:
    headers = {}
    while (line := stream.readline().decode("latin-1").strip()) != "":
        name, value = line.split(":", 1)
        headers[name.lower()] = value.strip()
    return headers


def _answer_body(
    stream: IO[bytes], headers: dict[str, str], method: str, status: int
) -> Iterator[bytes]:
    if method == "HEAD" or status in (100, 204, 304):
        return iter(())
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _chunks(stream)
    if "content-length" in headers:
        return _read_exactly(stream, int(headers["content-length"]))
    return iter(lambda: stream.read(BLOCK_BYTES), b"")


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield a chunked body with its framing."""
    while True:
        line = stream.readline()
        yield line
        size = int(line.split(b";")[0], 16)
        yield from _read_exactly(stream, size + 2)
        if size == 0:
            return


def _read_exactly(stream: IO[bytes], size: int) -> Iterator[bytes]:
    while size:
        block = stream.read(min(size, BLOCK_BYTES))
        if not block:
            raise Broken
        yield block
        size -= len(block)


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None
    return parts.hostname, parts.port


@contextmanager
def proxy(*upstreams: str, host: str | None = None) -> Iterator[Proxy]:
    """Run a `Proxy` in threads."""
    running = Proxy(*upstreams, host=host)
    threading.Thread(target=running.run, daemon=True).start()
    try:
        yield running
    finally:
        running.socket.shutdown(socket.SHUT_RDWR)
        running.socket.close()
        running.drop()
