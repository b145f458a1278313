"""One delivery over real connections: to receivers that fail, lie, lead astray, or never end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from coldfusion_server.events.webhooks import posting
from coldfusion_server.events.webhooks.networks import Allowed
from coldfusion_server.events.webhooks.posting import Answer, Letter, Poster, seconds_of
from coldfusion_server.settings import EVERYWHERE
from tests.server.receiver import (
    PATIENCE_SECONDS,
    Authority,
    Posted,
    Receiver,
    mute,
    receiver,
    status,
)

LOCAL = (ip_network("127.0.0.0/8"),)
# Of the receiver's own: nobody answers at it.
ELSEWHERE = "203.0.113.9"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def ci() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a receiver that is as slow as the machine; a test of its own says for how long."""
    monkeypatch.setattr(posting, "CONNECT_SECONDS", PATIENCE_SECONDS)


def post(
    url: str, allowed: Allowed = EVERYWHERE, seconds: float = PATIENCE_SECONDS, **how: Any
) -> Answer:
    letter = Letter(url, b"{}", {"webhook-id": "m"})
    return Poster(allowed, seconds=seconds, **how).post(letter)


def left(url: str, sentence: str, **how: Any) -> Answer:
    """
    Post to one that is left because time is up, which has to be said by the `sentence`.

    On a busy machine time may be up before that is reached which is to be waited for: then there is
    more of it.
    """
    for seconds in (0.3, 3.0, 30.0):
        answer = post(url, seconds=seconds, **how)
        if answer.error == sentence.format(seconds):
            break
    assert answer.error == sentence.format(seconds)
    return answer


def leads_to(*addresses: str) -> Callable[[str, int], Sequence[str]]:
    return lambda host, port: addresses


def test_a_receiver_answers(ci: Receiver) -> None:
    answer = post(ci.url)
    assert (answer.status, answer.error, answer.went_well) == (204, None, True)
    assert 0 < answer.seconds < PATIENCE_SECONDS
    (posted,) = ci.posted
    assert (posted.body, posted.id) == (b"{}", "m")


@pytest.mark.parametrize("code", [400, 401, 404, 410, 429, 500, 503])
def test_a_refusal_is_told(code: int, ci: Receiver) -> None:
    ci.behave = status(code, Retry_After="7")
    answer = post(ci.url)
    assert (answer.status, answer.error) == (code, f"It answered with status {code}.")
    assert answer.retry_after == "7"


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_and_not_followed(code: int, ci: Receiver) -> None:
    with receiver() as other:
        ci.behave = status(code, Location=other.url)
        answer = post(ci.url)
        assert answer.error is not None and "redirect" in answer.error
        assert other.posted == []


@pytest.mark.parametrize("place", ["https://xn--/", "http://[::::/", "http://a:99999999/", "\x7f"])
def test_a_redirect_to_what_is_no_address_is_a_failure_like_any_other(
    place: str, ci: Receiver
) -> None:
    ci.behave = status(302, Location=place)
    answer = post(ci.url)
    assert answer.status == 302
    assert answer.error is not None and "redirect" in answer.error


def test_proxies_of_the_environment_are_not_used(
    ci: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        assert post(ci.url).went_well
        assert proxy.posted == []


# Where it may go.


def test_nothing_private_is_reached_unless_the_operator_says_so(ci: Receiver) -> None:
    for url in (f"https://127.0.0.1:{ci.port}/", f"https://localhost:{ci.port}/"):
        answer = post(url, ())
        assert answer.error is not None and "private" in answer.error
    assert post(ci.url, LOCAL).went_well
    assert not post(ci.url, (ip_network("10.0.0.0/8"),)).went_well
    assert len(ci.posted) == 1


class Rebinding:
    """A resolver that gives a good address first, and then another one."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    def __call__(self, host: str, port: int) -> Sequence[str]:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        return answer


def test_what_is_connected_to_is_the_address_that_was_checked(
    ci: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Rebinding(["127.0.0.1"], [ELSEWHERE])
    connected: list[Any] = []
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> Any:
        connected.append(address)
        return real(self, address)

    # By whichever way: httpx asks a name's addresses of the system's resolver, if it asks at all.
    def refuse(*args: Any, **more: Any) -> Any:
        raise AssertionError(f"looked up again: {args}")

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        patch.setattr("asyncio.BaseEventLoop.getaddrinfo", _numbers_alone)
        patch.setattr(socket, "getaddrinfo", refuse)
        answer = post(f"http://rebinding.example.org:{ci.port}/x", LOCAL, resolver=resolver)
    assert answer.went_well
    assert resolver.asked == 1
    assert ci.posted[0].headers["host"] == f"rebinding.example.org:{ci.port}"


async def _numbers_alone(self: Any, host: str, port: int, **more: Any) -> Any:
    """Stand in for the loop's resolver, and find numbers alone."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    socket.inet_pton(family, host)
    return [(family, socket.SOCK_STREAM, 6, "", (host, port))]


def test_a_name_that_turns_private_after_the_check_reaches_nothing(ci: Receiver) -> None:
    resolver = Rebinding([ELSEWHERE], ["127.0.0.1"])
    answer = post(f"https://rebinding.example.org:{ci.port}/", (), resolver=resolver, seconds=2.0)
    assert not answer.went_well and resolver.asked == 1
    # And at the next try it is looked at anew.
    answer = post(f"https://rebinding.example.org:{ci.port}/", (), resolver=resolver)
    assert answer.error is not None and "private" in answer.error
    assert ci.posted == []


@pytest.mark.parametrize("found", [
    ["127.0.0.1"], ["1.1.1.1", "10.0.0.1"], ["::ffff:127.0.0.1"], ["fe80::1%lo"], [],
    ["169.254.169.254"], ["not an address"], ["1.1.1.1", "not an address"],
])  # fmt: skip
def test_a_name_that_leads_inside_reaches_nothing(found: list[str], ci: Receiver) -> None:
    answer = post(f"https://inside.example.org:{ci.port}/", (), resolver=leads_to(*found))
    assert answer.error is not None and "do not reach" in answer.error
    assert ci.posted == []


def test_http_is_for_private_addresses_alone() -> None:
    answer = post("http://outside.example.org:8080/", LOCAL, resolver=leads_to("1.1.1.1"))
    assert answer.error is not None and "https" in answer.error


def test_the_next_address_is_tried_where_one_refuses(ci: Receiver) -> None:
    # Nothing listens at that one; on Linux all of 127/8 is this machine.
    resolver = leads_to("127.9.9.9", "127.0.0.1")
    assert post(f"http://two.example.org:{ci.port}/", LOCAL, resolver=resolver).went_well


def test_a_name_that_is_not_known_is_told() -> None:
    def unknown(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror("no")

    answer = post("https://nowhere.example.org/", resolver=unknown)
    assert answer.error == "The name of its server is not known."


# Certificates.


def test_the_certificate_has_to_be_the_names(authority: Authority, tmp_path: Path) -> None:
    here = leads_to("127.0.0.1")
    how: dict[str, Any] = {"resolver": here, "trusted": authority.trusted}
    with receiver(authority.server(tmp_path, "ci.example.org")) as ci:
        good = post(f"https://ci.example.org:{ci.port}/x", LOCAL, **how)
        assert good.went_well, good.error
        liar = post(f"https://other.example.org:{ci.port}/x", LOCAL, **how)
        assert liar.error is not None and "certificate" in liar.error
        # The address alone is no name of its own.
        number = post(f"https://127.0.0.1:{ci.port}/x", LOCAL, **how)
        assert number.error is not None and "certificate" in number.error
        # Nobody whom we trust has signed it.
        stranger = post(f"https://ci.example.org:{ci.port}/x", LOCAL, resolver=here)
        assert stranger.error is not None and "certificate" in stranger.error
        assert len(ci.posted) == 1
    with receiver(authority.server(tmp_path, "127.0.0.1")) as ci:
        assert post(f"https://127.0.0.1:{ci.port}/x", LOCAL, **how).went_well
    with receiver(authority.server(tmp_path, "ci.example.org", days=-1)) as ci:
        past = post(f"https://ci.example.org:{ci.port}/x", LOCAL, **how)
        assert past.error is not None and "certificate has expired" in past.error
    with receiver() as plain:
        answer = post(f"https://ci.example.org:{plain.port}/x", LOCAL, **how)
        assert not answer.went_well and plain.posted == []


# Time and size.


def test_one_that_says_nothing_is_left() -> None:
    with mute() as port:
        left(f"http://127.0.0.1:{port}/", "It did not answer within {:g} seconds.")
        left(f"https://127.0.0.1:{port}/", "No connection could be made in time.")


def test_one_that_answers_in_drops_is_left(ci: Receiver) -> None:
    over = threading.Event()

    def drops(posted: Posted, handler: BaseHTTPRequestHandler) -> bool:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not over.wait(0.02):
            handler.wfile.write(b"x")
            handler.wfile.flush()
        return True

    ci.behave = drops
    try:
        answer = left(ci.url, "It did not answer within {:g} seconds.")
    finally:
        over.set()
    assert answer.status is None


def test_a_resolver_that_hangs_holds_nothing_up() -> None:
    over = threading.Event()

    def hangs(host: str, port: int) -> Sequence[str]:
        over.wait()
        return ["127.0.0.1"]

    try:
        answer = post("https://slow.example.org/", resolver=hangs, seconds=0.2)
    finally:
        over.set()
    assert answer.error == "It did not answer within 0.2 seconds."


def test_of_a_huge_answer_the_status_counts_and_little_is_read(ci: Receiver) -> None:
    sent: list[int] = []
    ended = threading.Event()

    def huge(posted: Posted, handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(10**9))
        handler.end_headers()
        try:
            while sum(sent) < 10**9:
                sent.append(handler.wfile.write(bytes(2**16)))
        except OSError:
            pass
        ended.set()
        return True

    ci.behave = huge
    assert post(ci.url).status == 200
    assert ended.wait(60)
    # What fits into the buffers between the two is beyond anybody's reach.
    assert sum(sent) < 50 * 2**20


def test_one_that_drops_the_connection_has_failed(ci: Receiver) -> None:
    def drop(posted: Posted, handler: BaseHTTPRequestHandler) -> bool:
        handler.connection.shutdown(socket.SHUT_RDWR)
        return True

    ci.behave = drop
    answer = post(ci.url)
    assert answer.error == "It broke the connection off, or what it answered is no HTTP."


def test_one_that_speaks_no_http_has_failed(ci: Receiver) -> None:
    def garbage(posted: Posted, handler: BaseHTTPRequestHandler) -> bool:
        handler.wfile.write(b"\x00\x01 no HTTP at all\r\n\r\n" * 10)
        return True

    ci.behave = garbage
    assert not post(ci.url).went_well


def test_one_that_drops_a_body_it_has_promised_was_told(ci: Receiver) -> None:
    def promise(posted: Posted, handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.connection.shutdown(socket.SHUT_RDWR)
        return True

    ci.behave = promise
    assert post(ci.url).went_well


NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(("text", "found"), [
    ("120", 120.0), (" 0 ", 0.0), ("Mon, 01 Jun 2026 12:00:30 GMT", 30.0),
    ("Mon, 01 Jun 2026 11:00:00 GMT", 0.0), (None, None), ("", None), ("-1", None), ("soon", None),
    ("1e9", None), ("9" * 50, None), ("²", None), ("Mon, 99 Jun 2026 12:00:30 GMT", None),
])  # fmt: skip
def test_retry_after_is_read_or_passed_over(text: str | None, found: float | None) -> None:
    assert seconds_of(text, NOW) == found
