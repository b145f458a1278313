from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import httpx
import pytest

from coldfusion_client.api import Api
from coldfusion_client.events import follow, parse
from coldfusion_shared import errors
from coldfusion_shared.schemas.events import Event
from tests.client.repository import MODEL


def event(number: int) -> str:
    data = {"id": number, "type": "base.published", "model": MODEL, "at": "2026-01-01T00:00:00Z"}
    return f"id: {number}\nevent: base.published\ndata: {json.dumps({**data, 'data': {}})}\n\n"


class Stream(httpx.SyncByteStream):
    def __init__(self, text: str, *, breaks: bool) -> None:
        self.text, self.breaks = text, breaks

    def __iter__(self) -> Iterator[bytes]:
        yield self.text.encode()
        if self.breaks:
            raise httpx.ReadError("reset")


def test_the_stream_is_taken_up_after_the_last_event_seen(connect: Callable[..., Api]) -> None:
    asked: list[str | None] = []
    streams = [
        Stream(": hello\n\n" + event(5) + event(6), breaks=True),
        Stream(event(6) + event(7), breaks=False),
        Stream(event(8), breaks=False),
    ]

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("Last-Event-ID"))
        if not streams:
            return httpx.Response(503)
        return httpx.Response(200, stream=streams.pop(0))

    seen: list[Event] = []
    with pytest.raises(errors.ServerError):
        follow(connect(handle=handle), MODEL, seen.append)
    assert [one.id for one in seen] == [5, 6, 7, 8]
    assert asked[:4] == [None, "6", "7", "8"]


def test_a_line_that_breaks_before_the_first_event_loses_none(connect: Callable[..., Api]) -> None:
    asked: list[str | None] = []
    streams = [
        Stream(": connected\nid: 41\n\n", breaks=True),
        Stream(": connected\nid: 41\n\n: still here\n\n" + event(43), breaks=True),
        Stream(": connected\nid: 43\n\n" + event(44), breaks=False),
    ]

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("Last-Event-ID"))
        return httpx.Response(200, stream=streams.pop(0)) if streams else httpx.Response(503)

    seen: list[Event] = []
    with pytest.raises(errors.ServerError):
        follow(connect(handle=handle), MODEL, seen.append)
    assert [one.id for one in seen] == [43, 44]
    assert asked[:4] == [None, "41", "43", "44"]


@pytest.mark.parametrize("bad", ["²", "-1", "x", "", "1.5", "9" * 5000])
def test_an_id_that_is_none_begins_nothing(bad: str) -> None:
    begun: list[int] = []
    assert list(parse(iter(["id: " + bad, ""]), begun.append)) == []
    assert begun == []


def test_a_stream_that_always_ends_at_once_is_given_up(connect: Callable[..., Api]) -> None:
    with pytest.raises(errors.ServerUnreachable):
        follow(
            connect(handle=lambda _: httpx.Response(200, stream=Stream("", breaks=False))),
            MODEL,
            print,
        )


def test_what_is_none_of_ours_is_passed_over() -> None:
    text = ": keep-alive\n\ndata: {}\n\nretry: 5\n\n" + event(1).replace("data: ", "data:")
    assert [one.id for one in parse(iter(text.split("\n")))] == [1]


def test_a_repository_that_was_put_back_is_followed_from_there(connect: Callable[..., Api]) -> None:
    reset = event(3).replace("base.published", "events.reset")
    streams = [
        Stream(event(8), breaks=False),
        Stream(reset + event(4), breaks=False),
        Stream(event(5), breaks=False),
    ]
    asked: list[str | None] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("Last-Event-ID"))
        return httpx.Response(200, stream=streams.pop(0)) if streams else httpx.Response(503)

    seen: list[Event] = []
    with pytest.raises(errors.ServerError):
        follow(connect(handle=handle), MODEL, seen.append)
    assert [one.id for one in seen] == [8, 3, 4, 5]
    assert [one.type for one in seen if one.id == 3] == ["events.reset"]
    assert asked[:4] == [None, "8", "4", "5"]
