from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx
import pytest

from coldfusion_client.api import Api
from coldfusion_client.newer import NewerBase
from tests.client.helpers import Notes, model_files
from tests.client.repository import MODEL, Repository


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_each_newer_base_is_told_once(
    connect: Callable[..., Api], repository: Repository, notes: Notes
) -> None:
    with NewerBase(connect(), MODEL, "v0", notes, every=0.005):
        until(lambda: len(repository.requests) > 2)
        assert notes.warned == []
        for version in (1, 2):
            repository.publish(model_files(version))
            until(lambda version=version: len(notes.warned) == version)  # type: ignore[misc]
    assert notes.warned[0].startswith("v1 was published while you finetune v0.")
    assert "--onto latest" in notes.warned[1]


def test_a_lost_network_is_no_matter(
    connect: Callable[..., Api], repository: Repository, notes: Notes
) -> None:
    def down(request: httpx.Request) -> httpx.Response | None:
        if len(repository.requests) < 4:
            raise httpx.ConnectError("no network")
        return None

    repository.faults.append(down)
    repository.publish(model_files(1))
    with NewerBase(connect(), MODEL, "v0", notes, every=0.005):
        until(lambda: notes.warned)
    assert len(notes.warned) == 1


def test_a_connection_that_is_closed_under_a_look_is_no_traceback(
    connect: Callable[..., Api], notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, closed, look = threading.Event(), threading.Event(), Api.model

    def late(api: Api, name: str) -> object:
        looking.set()
        assert closed.wait(120)
        return look(api, name)

    monkeypatch.setattr(Api, "model", late)
    api = connect()
    look_out = NewerBase(api, MODEL, "v0", notes, every=0.005)
    with look_out:
        assert looking.wait(120)
    api.connection.close()
    closed.set()
    # What it raised would be seen by pytest.
    look_out._thread.join(120)
    assert not look_out._thread.is_alive() and notes.warned == []
