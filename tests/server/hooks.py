"""Webhooks in tests: made over HTTP, delivered by a deliverer that runs beside the block."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread
from threading import enumerate as enumerate_threads
from typing import Any

import pytest

from coldfusion_server import deliverer
from coldfusion_server.deliverer import Post, run_deliverer
from coldfusion_server.events import outbox
from coldfusion_server.events.webhooks import posting
from coldfusion_server.events.webhooks.posting import Poster
from tests.server.receiver import PATIENCE_SECONDS
from tests.server.repository import MODEL, Repository


def make(repo: Repository, url: str, token: str | None = None, **values: Any) -> dict[str, Any]:
    """Make a webhook of the tiny model; return what the API says, its secret in it."""
    body = {"model": MODEL, "url": url, "events": ["*"], **values}
    answer = repo.client(token or repo.token("mia", "maintainer")).post("/v1/webhooks", json=body)
    assert answer.status_code == 201, answer.text
    found = answer.json()
    return {**found["webhook"], "secret": found["secret"]}


def happen(repo: Repository, *kinds: str, model: str | None = MODEL, **data: Any) -> list[int]:
    """Let something happen; return the ids of the events."""
    with repo.ctx.database.write() as session:
        before = outbox.newest(session)
        for kind in kinds:
            outbox.append(session, repo.clock(), kind, model, data)
        session.flush()
        return [event.id for event in outbox.after(session, before, 500)]


@contextmanager
def delivering(repo: Repository, post: Post | None = None) -> Iterator[None]:
    """Run a deliverer beside the block, and see its tries end."""
    stop = Event()
    thread = Thread(target=run_deliverer, args=(repo.ctx, stop, post))
    with pytest.MonkeyPatch.context() as patch:
        # A receiver here is as slow as the machine, and what has failed waits for a clock that may
        # stand still.
        patch.setattr(posting, "CONNECT_SECONDS", PATIENCE_SECONDS)
        patch.setattr(deliverer, "Poster", partial(Poster, seconds=PATIENCE_SECONDS))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            # What goes on behind it would write into a database that is closed by then.
            for other in enumerate_threads():
                if other.name == "webhook":
                    other.join()


def deliveries(repo: Repository, hook: str, query: str = "") -> list[dict[str, Any]]:
    """Return a webhook's deliveries, the newest first."""
    path = f"/v1/webhooks/{hook}/deliveries?limit=200&{query}"
    found: list[dict[str, Any]] = repo.get(path, repo.token("mia", "maintainer"))["items"]
    return found


def eventually(what: Callable[[], Any]) -> Any:
    """Return what `what` returns once it is something."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := what()):
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)
    return found


def settled(repo: Repository, hook: str, count: int, *states: str) -> list[dict[str, Any]]:
    """Return the deliveries once so many are in these states."""

    def look() -> list[dict[str, Any]] | None:
        found = [one for one in deliveries(repo, hook) if one["state"] in states]
        return found if len(found) >= count else None

    found: list[dict[str, Any]] = eventually(look)
    return found
