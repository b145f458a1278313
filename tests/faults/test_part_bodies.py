"""Senders that lie about the length of a part, on raw sockets, to a server that keeps objects."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.faults.stage import MIB, MODEL, Stage, wait_for

SIZE = 1 * MIB
# What the buffers of the two sockets and the server's own take in beyond what was declared.
SLACK_BYTES = 16 * MIB
FLOOD_BYTES = 256 * MIB
# The server closes a connection some seconds after its answer, or much later on a busy machine.
CLOSED_SECONDS = 120


@pytest.fixture
def target(on_disk: Stage) -> Iterator[str]:
    """The path and query of a part's URL."""
    declared = on_disk.declare()
    assert declared.status_code == 201, declared.text
    [part] = declared.json()["upload"]["files"][0]["parts"]
    contribution = declared.json()["contribution"]["id"]
    parts = urlsplit(part["url"])
    yield f"{parts.path}?{parts.query}"
    with on_disk.store() as store:
        store.discard_upload(f"{contribution}.0")


@contextmanager
def connected(on: Stage) -> Iterator[socket.socket]:
    parts = urlsplit(on.server.url)
    assert parts.hostname and parts.port
    with socket.create_connection((parts.hostname, parts.port), timeout=120) as connection:
        yield connection


def head(target: str, *headers: str) -> bytes:
    lines = [f"PUT {target} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]
    return "\r\n".join(lines).encode()


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """Read until the server closes; return the status, 0 if it said nothing, and all of it."""
    said = b""
    connection.settimeout(CLOSED_SECONDS)
    with suppress(ConnectionError, TimeoutError):
        while block := connection.recv(2**16):
            said += block
    return (int(said.split()[1]) if said else 0), said


def kept(on: Stage, target: str) -> list[int]:
    """Return the sizes of the parts that are stored for the upload."""
    upload = target.split("?")[0].split("/")[3]
    with on.store() as store:
        return [part.size for part in store.parts(upload).values()]


def resident(on: Stage) -> int:
    """Return the bytes of memory that the server has."""
    assert on.server.process
    status = Path(f"/proc/{on.server.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


def flood(connection: socket.socket, chunk: bytes) -> int:
    """Send until the server has enough of it; return how many bytes it took."""
    sent = 0
    with suppress(OSError):
        while sent < FLOOD_BYTES:
            connection.sendall(chunk)
            sent += len(chunk)
    return sent


def test_the_right_length_is_taken(on_disk: Stage, target: str) -> None:
    with connected(on_disk) as connection:
        connection.sendall(head(target, f"Content-Length: {SIZE}", "Connection: close"))
        connection.sendall(bytes(SIZE))
        assert answer(connection)[0] == 200
    assert kept(on_disk, target) == [SIZE]


@pytest.mark.parametrize("length", [SIZE + 1, 2**40, 10**17])
def test_a_length_that_is_too_large_is_refused_before_the_body(
    on_disk: Stage, target: str, length: int
) -> None:
    before = resident(on_disk)
    with connected(on_disk) as connection:
        connection.sendall(head(target, f"Content-Length: {length}"))
        sent = flood(connection, bytes(MIB)) if length > 2**30 else 0
        status, said = answer(connection)
    assert status in ((413,) if not sent else (413, 0)), said
    assert sent <= SLACK_BYTES
    assert kept(on_disk, target) == []
    assert resident(on_disk) - before < 64 * MIB


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: -1"],
        ["Content-Length: +5"],
        ["Content-Length: 0x10"],
        ["Content-Length: 1e3"],
        ["Content-Length: " + "9" * 30],
        ["Content-Length: 5, 5"],
        [f"Content-Length: {SIZE}", "Content-Length: 5"],
        [f"Content-Length: {SIZE}", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked, identity"],
        ["Transfer-Encoding: gzip"],
        ["Content-Length: 0"],
        [],
    ],
)
def test_a_length_that_makes_no_sense_is_refused(
    on_disk: Stage, target: str, headers: list[str]
) -> None:
    with connected(on_disk) as connection:
        connection.sendall(head(target, *headers, "Connection: close"))
        with suppress(OSError):
            connection.sendall(bytes(SIZE))
        # Where the server waits for a chunk, there is none.
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        status, said = answer(connection)
    assert status == 0 or 400 <= status < 500, said
    assert kept(on_disk, target) == []


def test_a_body_beyond_its_length_is_no_part_of_it(on_disk: Stage, target: str) -> None:
    with connected(on_disk) as connection:
        connection.sendall(head(target, f"Content-Length: {SIZE}"))
        connection.sendall(bytes(SIZE))
        sent = flood(connection, bytes(MIB))
        status, said = answer(connection)
    assert status in (0, 200) and said.count(b"HTTP/1.1 200") <= 1, said
    assert sent <= SLACK_BYTES
    assert kept(on_disk, target) in ([], [SIZE])


@pytest.mark.parametrize("chunk", [2**10, 2**20])
def test_an_endless_chunked_body_is_cut_off(on_disk: Stage, target: str, chunk: int) -> None:
    before = resident(on_disk)
    with connected(on_disk) as connection:
        connection.sendall(head(target, "Transfer-Encoding: chunked"))
        sent = flood(connection, f"{chunk:x}\r\n".encode() + bytes(chunk) + b"\r\n")
        status, said = answer(connection)
    assert status in (0, 413), said
    assert sent <= SLACK_BYTES
    assert kept(on_disk, target) == []
    assert resident(on_disk) - before < 64 * MIB


def test_a_chunked_body_of_the_right_length_is_taken(on_disk: Stage, target: str) -> None:
    with connected(on_disk) as connection:
        connection.sendall(head(target, "Transfer-Encoding: chunked", "Connection: close"))
        connection.sendall(f"{SIZE:x}\r\n".encode() + bytes(SIZE) + b"\r\n0\r\n\r\n")
        assert answer(connection)[0] == 200
    assert kept(on_disk, target) == [SIZE]


def test_a_body_that_ends_early_is_not_kept(on_disk: Stage, target: str) -> None:
    # A server that another test has killed leaves what it was at for a day.
    before = set(on_disk.temporary())
    with connected(on_disk) as connection:
        connection.sendall(head(target, f"Content-Length: {SIZE}"))
        connection.sendall(bytes(SIZE - 1))
        connection.shutdown(socket.SHUT_WR)
        answer(connection)
    assert kept(on_disk, target) == []
    wait_for(lambda: set(on_disk.temporary()) <= before, "the server to tidy up")


def test_bodies_that_hardly_move_hold_up_nobody(on_disk: Stage, target: str) -> None:
    connections = []
    before = resident(on_disk)
    try:
        for _ in range(50):
            parts = urlsplit(on_disk.server.url)
            connection = socket.create_connection((parts.hostname, parts.port), timeout=120)
            connection.sendall(head(target, f"Content-Length: {SIZE}") + b"x")
            connections.append(connection)
        for _ in range(5):
            time.sleep(0.1)
            for connection in connections:
                connection.sendall(b"x")
            assert on_disk.ask("GET", f"/v1/models/{MODEL}", seconds=60).status_code == 200
    finally:
        for connection in connections:
            connection.close()
    assert kept(on_disk, target) == []
    assert resident(on_disk) - before < 64 * MIB
