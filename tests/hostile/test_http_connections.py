"""Connections that bring nothing, or too little, or take nothing: closed, and nobody else waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.types import Message

from coldfusion_server import connections
from coldfusion_server.api import request_body
from coldfusion_server.api.crowd import Crowd, neighbourhood
from coldfusion_server.api.request_body import RequestBody
from coldfusion_server.settings import Settings
from coldfusion_shared.errors import RateLimited, TooSlow
from tests.hostile.serving import WAIT_SECONDS, Peer, Web, served
from tests.server.repository import Repository, repository

HOST = b"Host: here\r\n"
GET = b"GET /v1 HTTP/1.1\r\n" + HOST + b"\r\n"
LAST = b"GET /v1 HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
# As many as an honest client never has, and more than there are threads.
MANY = 200


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    with repository(tmp_path_factory.mktemp("web")) as opened:
        yield opened


@pytest.fixture(scope="module")
def web(repo: Repository) -> Iterator[Web]:
    with served(repo.app, repo.settings) as running:
        yield running


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a body be waited for half a second."""
    monkeypatch.setattr(request_body, "SILENCE_SECONDS", 0.5)


@pytest.fixture
def known(web: Web, monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    """A connection that was good once; from the next answer on it has half a second."""
    with web.connect(GET) as peer:
        assert peer.answer().startswith(b"HTTP/1.1 200 ")
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
        yield peer


def wait_for(condition: Any, what: str) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


@pytest.mark.parametrize("first", [b"", b"GET /v1 HTTP/1.1\r\nHost: x\r\nX-More: "])
def test_a_head_that_never_ends_is_not_waited_for(
    first: bytes, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    with web.connect(first) as peer:
        assert peer.rest() == b""
    with web.connect(first) as peer:
        assert peer.drip(b"x") == b""


def test_nor_is_a_second_one(known: Peer) -> None:
    known.send(GET)
    assert known.answer().startswith(b"HTTP/1.1 200 ")
    assert known.drip(b"GET ") == b""


def test_a_connection_may_ask_again_and_again(web: Web) -> None:
    with web.connect() as peer:
        for _ in range(4):
            peer.send(GET)
            assert b"200 OK" in peer.answer()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("drop", [b"", b" "], ids=["silent", "in drops"])
@pytest.mark.parametrize("path", [b"/login", b"/v1/models/a/b/contributions"])
def test_a_body_that_does_not_come_is_told_so(
    path: bytes, drop: bytes, web: Web, repo: Repository
) -> None:
    token = f"Authorization: Bearer {repo.token()}\r\n".encode()
    length = b"Content-Length: 1000\r\n"
    head = b"POST " + path + b" HTTP/1.1\r\n" + HOST + token + length + b"\r\n{"
    with web.connect(head) as peer:
        said = peer.drip(drop) if drop else peer.rest()
    assert said.startswith(b"HTTP/1.1 408 ") and b"connection: close" in said.lower()
    assert b"of the body have arrived" in said
    # A browser's form is answered with a page.
    assert (b'"code":"too_slow"' in said) == path.startswith(b"/v1/")


@pytest.mark.usefixtures("hasty")
def test_a_slow_part_is_given_up_and_leaves_nothing(web: Web, repo: Repository) -> None:
    if not repo.get("/v1/models")["items"]:
        repo.model()
    raw = bytes(1000)
    plan = repo.contributor().declare(raw).json()["upload"]
    target = plan["files"][0]["parts"][0]["url"].removeprefix("http://testserver").encode()
    head = b"PUT " + target + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 1000\r\n\r\n"
    with web.connect(head) as peer:
        said = peer.drip(b"x")
    assert said.startswith(b"HTTP/1.1 408 ") and b'"code":"too_slow"' in said
    wait_for(lambda: not list((repo.folder / "tmp").iterdir()), "the temporary file to go")


@pytest.mark.parametrize(("size", "taken"), [(20_000, 100), (5_000, 12), (0, 6)])
def test_a_body_gets_more_time_by_what_has_arrived(
    size: int, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of `size` bytes come every 10 seconds; so many are waited for, of a hundred."""
    now = [0.0]
    monkeypatch.setattr(request_body, "time", SimpleNamespace(monotonic=lambda: now[0]))
    pieces = 0

    async def receive() -> Message:
        nonlocal pieces
        # Time is up here, if it is.
        await anyio.lowlevel.checkpoint()
        now[0] += 10
        pieces += 1
        return {"type": "http.request", "body": bytes(size), "more_body": pieces < 100}

    async def read() -> None:
        headers = [(b"transfer-encoding", b"chunked")]
        body = RequestBody(receive, {"type": "http", "method": "PUT", "headers": headers}, 1)
        with suppress(TooSlow):
            while (await body.receive())["more_body"]:
                pass
        assert body.is_endless == (taken < 100)

    anyio.run(read)
    assert pieces == taken


@pytest.mark.parametrize("request_line", [b"POST /v1/models", b"GET /v1"])
def test_what_nobody_reads_does_not_drip_in_for_ever(request_line: bytes, known: Peer) -> None:
    known.send(request_line + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 1000\r\n\r\n")
    assert b"x-request-id" in known.drip(b"x")


def test_who_takes_nothing_of_an_answer_is_let_go(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "STALL_SECONDS", 0.5)

    asked, gone = Event(), False

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            asked.set()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while not gone:
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})

    with served(endless, repo.settings) as web, web.connect(GET):
        # It may be gone before anybody has looked.
        assert asked.wait(WAIT_SECONDS)
        wait_for(lambda: web.connections == 0, "its end")
        gone = True


def test_two_hundred_slow_ones_hold_up_nobody(web: Web) -> None:
    slow = [web.connect(b"GET /v1 HTTP/1.1\r\nX: ") for _ in range(MANY)]
    slow += [
        web.connect(b"POST /login HTTP/1.1\r\n" + HOST + b"Content-Length: 99\r\n\r\n")
        for _ in range(MANY)
    ]
    try:
        with web.connect(GET) as peer:
            assert peer.answer().startswith(b"HTTP/1.1 200 ")
    finally:
        for peer in slow:
            peer.socket.close()


def test_an_address_gets_no_more_connections_than_its_share(repo: Repository) -> None:
    strict = Settings(data_dir=repo.folder, address_requests=2, trusted_proxies="192.0.2.1")
    with served(repo.app, strict) as web:
        first, second = web.connect(GET), web.connect(GET)
        assert first.answer() and second.answer()
        assert web.ask(GET) == b""
        first.socket.close()
        wait_for(lambda: web.connections == 1, "the place to be free")
        with web.connect(GET) as third:
            assert third.answer().startswith(b"HTTP/1.1 200 ")
        second.socket.close()


def test_a_trusted_proxy_may_have_any_number(repo: Repository) -> None:
    settings = Settings(data_dir=repo.folder, address_requests=1)
    with served(repo.app, settings) as web:
        peers = [web.connect(GET) for _ in range(3)]
        assert all(peer.answer() for peer in peers)
        for peer in peers:
            peer.socket.close()


def test_an_address_gets_no_more_requests_at_a_time_than_its_share(tmp_path: Path) -> None:
    with repository(tmp_path, address_requests=1) as repo, served(repo.app, repo.settings) as web:
        with web.connect(b"POST /login HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\n") as slow:
            wait_for(lambda: web.connections == 1, "the first one")
            said = web.ask(LAST)
            assert said.startswith(b"HTTP/1.1 429 ") and b"retry-after: 5" in said.lower()
            slow.send(b"token=abc")
            assert slow.answer()
        # The place is free once all of the request has ended, which is behind its answer.
        wait_for(lambda: web.ask(LAST).startswith(b"HTTP/1.1 200 "), "the place to be free")


def test_a_crowd_counts_by_address() -> None:
    crowd = Crowd(1)
    with crowd.place("a"), crowd.place("b"), pytest.raises(RateLimited), crowd.place("a"):
        pass
    with crowd.place("a"):
        pass


@pytest.mark.parametrize(
    ("host", "same"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::2:3", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_what_counts_as_one_address(host: str, same: str) -> None:
    assert neighbourhood(host) == same


# Heads that no client would send, and what they get. Nothing of it is an error of ours.
STRANGE = {
    "length and chunks": (
        b"POST /login HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"
        b"\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n",
        422,
    ),
    "length and chunks of a GET": (
        b"GET /v1 HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"
        b"\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n",
        200,
    ),
    "two lengths": (
        b"POST /login HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        400,
    ),
    "negative length": (b"POST /login HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", 400),
    "length beyond all": (
        b"POST /login HTTP/1.1\r\n" + HOST + b"Content-Length: 9000000000000000000\r\n\r\n",
        422,
    ),
    "anonymous and large": (
        b"POST /v1/models HTTP/1.1\r\n" + HOST + b"Content-Length: 500000000\r\n\r\n",
        401,
    ),
    "anonymous and chunked": (
        b"POST /v1/models HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
        401,
    ),
    "two hosts": (b"GET /v1 HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
    "no host": (b"GET /v1 HTTP/1.1\r\n\r\n", 400),
    "a large head": (b"GET /v1 HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 300_000 + b"\r\n\r\n", 400),
    "a bare line feed": (b"GET /v1 HTTP/1.1\nHost: x\nX: a\r b\n\n", 400),
    "NUL": (b"GET /v1\x00 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n", 400),
}


@pytest.mark.parametrize(("raw", "status"), STRANGE.values(), ids=STRANGE.keys())
def test_strange_heads_are_refused_unread_and_the_connection_ends(
    raw: bytes, status: int, web: Web
) -> None:
    said = web.ask(raw)
    # With a reset a large head's answer may get lost.
    assert said.startswith(f"HTTP/1.1 {status} ".encode()) or (not said and len(raw) > 2**17)
    assert said.count(b"HTTP/1.1 ") <= 1 and (not said or b"connection: close" in said.lower())
    with web.connect(GET) as peer:
        assert peer.answer().startswith(b"HTTP/1.1 200 ")


def test_an_upgrade_is_answered_as_if_nobody_had_asked(web: Web) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    with web.connect(b"GET /v1 HTTP/1.1\r\n" + HOST + upgrade + key) as peer:
        assert peer.answer().startswith(b"HTTP/1.1 200 ")


def test_who_hangs_up_is_no_fault_of_ours(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    for path in (b"/login", b"/v1/models"):
        head = b"POST " + path + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\n"
        with web.connect(head):
            pass
    wait_for(lambda: web.connections == 0, "them to be gone")
    assert not caplog.records
