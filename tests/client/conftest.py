from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from coldfusion_client.api import Api
from coldfusion_client.cache import Cache
from coldfusion_client.connection import Connection
from coldfusion_client.patience import Patience
from coldfusion_client.source import Source
from tests.client.helpers import SERVER, Notes, model_files
from tests.client.repository import TOKEN, Repository, served


@pytest.fixture
def repository() -> Repository:
    return Repository(model_files())


@pytest.fixture
def connect(repository: Repository) -> Iterator[Callable[..., Api]]:
    made: list[Connection] = []

    def make(
        token: str | None = TOKEN, handle: Callable[[httpx.Request], httpx.Response] | None = None
    ) -> Api:
        transport = httpx.MockTransport(handle or repository.handle)
        patience = Patience(tries=4, first=0.001)
        made.append(Connection(SERVER, token, transport=transport, patience=patience))
        return Api(made[-1])

    yield make
    for connection in made:
        connection.close()


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def source(connect: Callable[..., Api], tmp_path: Path, notes: Notes) -> Source:
    return Source(connect(), Cache(tmp_path / "cache"), notes)


@pytest.fixture
def url(repository: Repository) -> Iterator[str]:
    with served(repository.handle) as address:
        yield address


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the real credentials, cache or current folder."""
    for name in [name for name in os.environ if name.startswith("COLDFUSION_")]:
        monkeypatch.delenv(name)
    for name in ("CONFIG", "CACHE"):
        monkeypatch.setenv(f"COLDFUSION_{name}", str(tmp_path / name.lower()))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository here screens at once."""
    monkeypatch.setattr("coldfusion_client.submission._FIRST_LOOK", 0.001)
