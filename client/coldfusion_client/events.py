"""A model's events as they happen: server-sent events, taken up again when the line breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
from pydantic import ValidationError

from coldfusion_client.api import Api
from coldfusion_client.connection import unreachable
from coldfusion_client.patience import Transient
from coldfusion_shared.errors import ServerUnreachable
from coldfusion_shared.event_types import RESET
from coldfusion_shared.schemas.events import Event


def follow(api: Api, model: str, seen: Callable[[Event], None], after: int | None = None) -> None:
    """
    Call `seen` for every event of `model`, in order and each once, for as long as there are any.

    After a long silence, or where the Repository was put back to a backup, an event of type
    `events.reset` comes instead of those that cannot be told any more.

    Args:
        api: the server.
        model: the model.
        seen: what to do with an event.
        after: the last event that is known already; null: begin with what happens from now on.

    Raises:
        ServerUnreachable: the connection was lost and did not come back.
        ModelNotFound: there is no such model.
    """
    last = after

    def begin(number: int) -> None:
        nonlocal last
        last = number if last is None else last

    def listen() -> None:
        nonlocal last
        for event in _events(api, model, last, begin):
            # What came behind `last` cannot be told any more: it goes on from elsewhere.
            if last is None or event.id > last or event.type == RESET:
                last = event.id
                seen(event)

    api.connection.patience.persist(listen, lambda: last)


def _events(
    api: Api, model: str, after: int | None, begin: Callable[[int], None]
) -> Iterator[Event]:
    with api.event_stream(model, after) as response:
        try:
            yield from parse(response.iter_lines(), begin)
        except httpx.RequestError as error:
            raise unreachable(response.url, error) from error
    # A server that shuts down ends the stream in good order; it will be back.
    raise Transient(
        ServerUnreachable(
            f"{api.server} does not go on telling what happens.",
            hint="Check the server, then give the same command again.",
        )
    )


def parse(
    lines: Iterator[str], begin: Callable[[int], None] = lambda number: None
) -> Iterator[Event]:
    """
    Yield the events of a ``text/event-stream``; what is none of ours is passed over.

    Args:
        lines: without their ends.
        begin: is told an id that comes without an event: what follows is behind that.
    """
    data: list[str] = []
    number = ""
    for line in lines:
        if line.startswith("data:"):
            data.append(line.removeprefix("data:").removeprefix(" "))
        elif line.startswith("id:"):
            number = line.removeprefix("id:").strip()
        elif not line and data:
            text, data, number = "\n".join(data), [], ""
            try:
                yield Event.model_validate_json(text)
            except ValidationError:
                continue
        elif not line and number.isascii() and number.isdigit() and len(number) <= 18:
            begin(int(number))
            number = ""
