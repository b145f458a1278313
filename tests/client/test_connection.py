from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from coldfusion_client.api import Api
from coldfusion_client.connection import Connection
from coldfusion_client.patience import AT_FIRST, Patience, Transient
from coldfusion_shared import errors
from tests.client.helpers import SERVER
from tests.client.repository import MODEL, TOKEN, Repository, once, problem

Connect = Callable[..., Api]


def answering(*answers: httpx.Response | Exception) -> Callable[[httpx.Request], httpx.Response]:
    fault = once("GET", ".*", *answers)
    info = {"version": "1", "time": "2026-01-01T00:00:00Z"}

    def handle(request: httpx.Request) -> httpx.Response:
        return fault(request) or httpx.Response(200, json=info)

    return handle


@pytest.mark.parametrize("error", errors.all_errors(), ids=lambda error: error.code)
def test_every_code_comes_back_as_its_class(
    connect: Connect, error: type[errors.ColdFusionError]
) -> None:
    answer = problem(409, error.code, "what", hint="do this", tensors=["a", "b"])
    with pytest.raises(errors.ColdFusionError) as caught:
        connect(handle=lambda _: answer).info()
    expected = errors.InvalidRequest if error is errors.ColdFusionError else error
    if error is errors.ColdFusionError:
        expected = errors.Conflict  # "internal" says nothing; the status does
    assert type(caught.value) is expected
    assert (caught.value.message, caught.value.hint) == ("what", "do this")
    assert caught.value.tensors == ("a", "b")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidRequest),
        (401, errors.Unauthenticated),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (413, errors.TooLarge),
        (500, errors.ServerError),
        (507, errors.StorageFull),
    ],
)
def test_an_unknown_code_is_read_by_its_status(
    connect: Connect, status: int, kind: type[errors.ColdFusionError]
) -> None:
    with pytest.raises(kind):
        connect(handle=lambda _: problem(status, "of_the_future")).info()


@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b'{"detail": "x"}'])
@pytest.mark.parametrize("status", [400, 401, 404, 502])
def test_an_answer_of_a_proxy_is_a_server_error(connect: Connect, status: int, body: bytes) -> None:
    with pytest.raises(errors.ServerError, match=str(status)):
        connect(handle=lambda _: httpx.Response(status, content=body)).info()


def test_an_answer_that_is_no_json_is_a_server_error(connect: Connect) -> None:
    with pytest.raises(errors.ServerError, match="understands"):
        connect(handle=lambda _: httpx.Response(200, text="<html>")).info()


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("cut"),
        *(httpx.Response(status) for status in (429, 500, 502, 503, 504)),
    ],
)
def test_what_passes_by_is_tried_again(
    connect: Connect, failure: httpx.Response | Exception
) -> None:
    assert connect(handle=answering(failure, failure)).info().version == "1"


def test_what_does_not_pass_by_is_not_tried_again(connect: Connect) -> None:
    with pytest.raises(errors.ServerError):
        connect(handle=answering(httpx.Response(418))).info()


def test_no_answer_after_all_tries_names_the_server(connect: Connect) -> None:
    calls = []

    def refuse(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        raise httpx.ConnectError("Connection refused")

    with pytest.raises(errors.ServerUnreachable, match="repository.test does not answer") as caught:
        connect(handle=refuse).info()
    assert len(calls) == 4
    assert caught.value.hint


def test_a_bad_certificate_is_not_tried_again(connect: Connect) -> None:
    calls = []

    def refuse(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed")

    with pytest.raises(errors.ServerUnreachable) as caught:
        connect(handle=refuse).info()
    assert len(calls) == 1
    assert "SSL_CERT_FILE" in (caught.value.hint or "")


def test_retry_after_is_kept_within_the_budget() -> None:
    waits: list[float] = []
    patience = Patience(tries=5, first=0.1, budget=10, sleep=waits.append)
    left = [Transient(errors.ServerError("a"), 3.0), Transient(errors.ServerError("b"), None)]

    def act() -> str:
        if left:
            raise left.pop(0)
        return "done"

    assert patience.persist(act) == "done"
    assert waits[0] == 3.0
    assert 0.1 <= waits[1] <= 0.2

    def never() -> None:
        raise Transient(errors.ServerError("an hour"), 3600)

    with pytest.raises(errors.ServerError, match="an hour"):
        patience.persist(never)
    assert len(waits) == 2


def test_a_server_that_asks_to_wait_is_obeyed_beside_the_budget() -> None:
    waits: list[float] = []
    told: list[str] = []
    patience = Patience(
        tries=2, first=0.5, budget=1, longest_asked=100, sleep=waits.append, notify=told.append
    )
    left = [Transient(errors.RateLimited("Too many."), 20.0) for _ in range(4)]

    def act() -> str:
        if left:
            raise left.pop()
        return "done"

    assert patience.persist(act) == "done"
    assert len(waits) == 4 and all(20 <= wait <= 20.5 for wait in waits)
    assert told[0].startswith("Too many. Trying again in 2")

    def never() -> None:
        raise Transient(errors.RateLimited("Too many."), 30.0)

    with pytest.raises(errors.RateLimited):
        patience.persist(never)
    assert len(waits) == 4 + 3


def test_who_tries_once_waits_for_nobody() -> None:
    patience = Patience(tries=1, sleep=lambda _: pytest.fail("waited"))

    def never() -> None:
        raise Transient(errors.RateLimited("Too many."), 1.0)

    with pytest.raises(errors.RateLimited):
        patience.persist(never)


@pytest.mark.parametrize("body", [{"json": {}}, {"content": b"slow down"}, None])
def test_a_server_that_was_never_met_is_obeyed_too(body: dict[str, Any] | None) -> None:
    """The server says 429 to the very first request, by itself or by a proxy."""
    waits: list[float] = []
    header = {"Retry-After": "45"}
    busy = problem(429, "rate_limited") if body is None else httpx.Response(429, **body)
    busy.headers.update(header)
    connection = Connection(SERVER, transport=httpx.MockTransport(answering(busy, busy)))
    connection._patience = replace(AT_FIRST, sleep=waits.append)
    assert Api(connection).info().version == "1"
    assert len(waits) == 2 and min(waits) >= 45
    connection.close()


def test_progress_renews_patience() -> None:
    patience = Patience(tries=2, sleep=lambda _: None)
    done = []

    def act() -> int:
        done.append(1)
        if len(done) < 20:
            raise Transient(errors.ServerError("cut"))
        return len(done)

    assert patience.persist(act, lambda: len(done)) == 20


def test_retries_are_told_from_the_second_on() -> None:
    told: list[str] = []
    patience = Patience(tries=3, sleep=lambda _: None, notify=told.append)

    def never() -> None:
        raise Transient(errors.ServerError("Busy."))

    with pytest.raises(errors.ServerError):
        patience.persist(never)
    assert len(told) == 1
    assert told[0].startswith("Busy. Trying again in")


@pytest.mark.parametrize("value", ["2", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_retry_after_is_read_in_both_forms(value: str) -> None:
    from coldfusion_client.answers import retry_after

    assert (retry_after(httpx.Response(503, headers={"Retry-After": value})) or 0) >= 2


def test_an_unreadable_retry_after_is_ignored() -> None:
    from coldfusion_client.answers import retry_after

    assert retry_after(httpx.Response(503, headers={"Retry-After": "soon"})) is None
    assert retry_after(httpx.Response(503)) is None


def test_a_server_that_answered_once_is_waited_for_longer() -> None:
    connection = Connection(SERVER, transport=httpx.MockTransport(answering()))
    before = connection.patience.tries
    Api(connection).info()
    assert connection.patience.tries > before
    connection.close()


def test_every_request_says_who_we_are(connect: Connect, repository: Repository) -> None:
    connect().whoami()
    assert repository.requests[0].headers["User-Agent"].startswith("coldfusion-client/")
    assert repository.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"


def test_the_token_goes_to_no_other_host(connect: Connect, repository: Repository) -> None:
    elsewhere: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.host != "repository.test":
            elsewhere.append(request)
            return httpx.Response(200, content=b"{}")
        if request.url.path.endswith("config.json"):
            return httpx.Response(307, headers={"Location": "https://bucket.test/config.json?x=1"})
        return repository.handle(request)

    api = connect(handle=handle)
    with api.open_file(MODEL, "v0", "config.json", 0) as response:
        response.read()
    api.put_part("https://bucket.test/part", [b"x"], 1, b"md5")
    assert [request.url.path for request in elsewhere] == ["/config.json", "/part"]
    assert all("Authorization" not in request.headers for request in elsewhere)


def test_the_same_host_on_another_port_or_scheme_is_another_one(connect: Connect) -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        hops = ["http://repository.test:9000/b", "https://repository.test/c"]
        if len(seen) <= len(hops):
            return httpx.Response(302, headers={"Location": hops[len(seen) - 1]})
        return httpx.Response(200)

    with connect(handle=handle).open_file(MODEL, "v0", "a", 0):
        pass
    assert ["Authorization" in request.headers for request in seen] == [True, False, False]


def test_downloads_in_circles_end(connect: Connect) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"Location": str(request.url)})

    with (
        pytest.raises(errors.ServerError, match="circles"),
        connect(handle=handle).open_file(MODEL, "v0", "a", 0),
    ):
        pass


def test_the_api_itself_is_not_followed_elsewhere(connect: Connect) -> None:
    moved = httpx.Response(301, headers={"Location": "https://evil.test/v1"})
    with pytest.raises(errors.ServerError, match="moved to https://evil.test"):
        connect(handle=lambda _: moved).info()


def test_an_answer_without_hint_to_a_bad_token_says_how_to_log_in(connect: Connect) -> None:
    with pytest.raises(errors.Unauthenticated) as caught:
        connect("wrong").whoami()
    assert caught.value.hint == f"Log in with: coldfusion-client login {SERVER}"


def test_a_failing_server_gives_the_number_of_the_request(connect: Connect) -> None:
    with pytest.raises(errors.ServerError) as caught:
        connect(handle=lambda _: problem(500, "internal", request_id="r-17")).info()
    assert "r-17" in (caught.value.hint or "")


def test_signatures_of_upload_urls_are_not_shown(connect: Connect) -> None:
    with pytest.raises(errors.UploadRefused) as caught:
        connect(handle=lambda _: httpx.Response(403, text="<Error/>")).put_part(
            "https://bucket.test/part?signature=secret", [b"x"], 1, b"md5"
        )
    assert "secret" not in caught.value.message


def test_pages_are_read_to_the_end(connect: Connect, repository: Repository) -> None:
    def paged(request: httpx.Request) -> httpx.Response | None:
        if request.url.path == "/v1/models" and "cursor" not in request.url.params:
            return httpx.Response(200, json={"items": [], "next_cursor": "more"})
        return None

    repository.faults.append(paged)
    assert [model.name for model in connect().models()] == [MODEL]
    assert repository.requests[-1].url.params["cursor"] == "more"


def test_once_tries_once(connect: Connect) -> None:
    api = connect(handle=answering(httpx.Response(503)))
    with pytest.raises(errors.ServerError):
        api.once().info()
    assert api.info().version == "1"
