"""The client's side of the device grant: polling as asked, ending as told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from coldfusion_client.api import Api
from coldfusion_client.config import credentials_file, load_credentials
from coldfusion_client.connection import Connection
from coldfusion_client.device import Clock, Prompt, sign_in
from coldfusion_client.patience import Patience
from coldfusion_shared.errors import NotFound, ProviderUnavailable, ServerError, SignInRefused

SERVER = "http://repository.test"
OFFER = {"issuer": "https://p.test", "client_id": "program", "scope": "openid",
         "device_authorization_endpoint": "https://p.test/d",
         "token_endpoint": "https://p.test/t"}  # fmt: skip
CODE = {"device_code": "secret-of-the-device", "user_code": "ABCD-EFGH", "interval": 3,
        "verification_uri": "https://p.test/v", "expires_in": 60}  # fmt: skip
TOKEN = {"token": "cf_new", "name": "ann", "role": "contributor",
         "expires_at": "2026-06-08T12:00:00Z"}  # fmt: skip
PENDING = (400, {"error": "authorization_pending"})
SLOWER = (400, {"error": "slow_down"})
DONE = (200, {"id_token": "eyJ", "access_token": "a"})
Answer = tuple[int, Any] | Exception | bytes


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLDFUSION_CONFIG", str(tmp_path / "config"))


class World:
    """A Repository, its provider, and a clock that waits for nobody."""

    def __init__(self, *answers: Answer, code: Any = CODE, offer: Any = OFFER) -> None:
        self.answers = list(answers)
        self.code = code
        self.offer = offer
        self.waited: list[float] = []
        self.shown: list[Prompt] = []
        self.sent: list[httpx.Request] = []

    def repository(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        if request.method == "GET":
            return httpx.Response(200 if "client_id" in self.offer else 404, json=self.offer)
        return httpx.Response(200, json=TOKEN)

    def provider(self, request: httpx.Request) -> httpx.Response:
        assert "authorization" not in request.headers
        self.sent.append(request)
        answer: Answer = (200, self.code)
        if request.url.path == "/t":
            answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, bytes):
            return httpx.Response(200, content=answer)
        return httpx.Response(answer[0], json=answer[1], headers={"Location": "https://evil.test"})

    def sign_in(self) -> Any:
        clock = Clock()
        clock.now = lambda: sum(self.waited)
        clock.sleep = self.waited.append
        transport = httpx.MockTransport(self.repository)
        connection = Connection(SERVER, transport=transport, patience=Patience(tries=1))
        with Api(connection) as api:
            return sign_in(
                api,
                self.shown.append,
                transport=httpx.MockTransport(self.provider),
                clock=clock,
            )


def test_it_asks_as_often_as_it_is_told_and_keeps_the_token() -> None:
    world = World(PENDING, SLOWER, PENDING, DONE)
    assert world.sign_in().name == "ann"
    assert world.waited == [3, 3, 8, 8]
    (prompt,) = world.shown
    assert (prompt.url, prompt.code, prompt.minutes) == ("https://p.test/v", "ABCD-EFGH", 1)
    assert load_credentials(credentials_file()).tokens == {SERVER: "cf_new"}
    assert [request.url.path for request in world.sent] == [
        "/v1/sign-in", "/d", "/t", "/t", "/t", "/t", "/v1/sign-in",
    ]  # fmt: skip
    form = parse_qs(world.sent[2].content.decode())
    assert form["device_code"] == ["secret-of-the-device"] and form["client_id"] == ["program"]
    assert json.loads(world.sent[-1].content) == {"id_token": "eyJ"}
    assert len(world.sent[-1].headers["idempotency-key"]) >= 16


def test_without_an_interval_it_is_five_seconds() -> None:
    world = World(DONE, code={**CODE, "interval": 5} | {"interval": 5})
    world.code = {name: value for name, value in CODE.items() if name != "interval"}
    world.sign_in()
    assert world.waited == [5]


@pytest.mark.parametrize(
    ("answers", "error", "why"),
    [
        ([PENDING] * 40, SignInRefused, "Nobody has typed"),
        ([SLOWER] * 40, SignInRefused, "Nobody has typed"),
        ([(400, {"error": "access_denied"})], SignInRefused, "refused at the provider"),
        ([(400, {"error": "expired_token"})], SignInRefused, "has expired"),
        ([(400, {"error": "invalid_grant"})], SignInRefused, "no more"),
        ([(400, {"error": ["x"]})], SignInRefused, "no more"),
        ([(302, {"error": "moved"})], SignInRefused, "no more"),
        ([(200, {"access_token": "a"})], ProviderUnavailable, "who you are"),
        ([(200, {"id_token": "x" * 20_000})], ProviderUnavailable, "who you are"),
        ([httpx.ConnectError("away")] * 40, SignInRefused, "Nobody has typed"),
        ([b"<html>"] * 40, SignInRefused, "Nobody has typed"),
        ([b"x" * 100_000] * 40, SignInRefused, "Nobody has typed"),
    ],
)
def test_it_ends_with_a_sentence(answers: list[Answer], error: type[Exception], why: str) -> None:
    world = World(*answers)
    with pytest.raises(error, match=why):
        world.sign_in()
    assert sum(world.waited) <= 60
    assert load_credentials(credentials_file()).tokens == {}


def test_a_provider_that_comes_back_is_asked_on() -> None:
    world = World(httpx.ConnectError("away"), b"<html>", DONE)
    assert world.sign_in().name == "ann"
    assert world.waited == [3, 6, 12]


@pytest.mark.parametrize(
    "change",
    [{"user_code": None}, {"device_code": 7}, {"verification_uri": ""}, {"expires_in": "x"},
     {"expires_in": None}, {"interval": -1}, {"interval": True}, {"user_code": "x" * 3000}],
)  # fmt: skip
def test_codes_that_are_none_are_not_shown(change: dict[str, Any]) -> None:
    world = World(code={**CODE, **change})
    with pytest.raises(ProviderUnavailable):
        world.sign_in()
    assert not world.shown


def test_nobody_waits_for_ever_whatever_a_provider_says() -> None:
    world = World(*[PENDING] * 100, code={**CODE, "interval": 1e6, "expires_in": 1e8})
    with pytest.raises(SignInRefused):
        world.sign_in()
    assert max(world.waited) <= 60 and sum(world.waited) <= 1800


@pytest.mark.parametrize("name", ["device_authorization_endpoint", "token_endpoint"])
def test_a_provider_that_is_not_encrypted_is_not_asked(name: str) -> None:
    for url in ("http://p.test/x", "file:///etc/passwd"):
        world = World(offer={**OFFER, name: url})
        with pytest.raises(ServerError, match="not encrypted"):
            world.sign_in()
        assert len(world.sent) == 1


def test_a_server_without_it_says_so() -> None:
    problem = {"type": "x", "title": "x", "status": 404, "detail": "No.", "code": "not_found"}
    with pytest.raises(NotFound):
        World(offer=problem).sign_in()


def test_time_goes_on_by_itself() -> None:
    clock: Any = Clock()
    now: Callable[[], float] = clock.now
    assert now() <= now()
