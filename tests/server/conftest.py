"""The server's fixtures."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from coldfusion_shared.errors import StorageUnavailable
from tests.server.backends import Backend
from tests.server.repository import Repository, repository


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep what the server logs as values, so that a command's own streams stay its own."""
    capture = structlog.testing.LogCapture()
    structlog.configure(processors=[capture], cache_logger_on_first_use=False)
    yield
    structlog.reset_defaults()


@dataclass(frozen=True)
class Prepared:
    """Data folders that were made once, and their databases where those are elsewhere."""

    folder: Path
    databases: dict[str, str | None]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[Prepared]:
    """One Repository without a model and one with the tiny one, to be copied for each test."""
    folder = tmp_path_factory.mktemp("prepared")
    with backend.database() as empty, backend.database() as tiny:
        with repository(folder / "empty", empty):
            pass
        with repository(folder / "repo", tiny) as opened:
            opened.model()
        yield Prepared(folder, {"empty": empty, "repo": tiny})


@pytest.fixture
def database_url(
    request: pytest.FixtureRequest, backend: Backend, prepared: Prepared
) -> Iterator[str | None]:
    """The URL of the test's database, null where it is in the data folder; a copy or empty."""
    kind = next((name for name in prepared.databases if name in request.fixturenames), "")
    with backend.database(prepared.databases.get(kind)) as url:
        yield url


@pytest.fixture
def empty(tmp_path: Path, prepared: Prepared, database_url: str | None) -> Iterator[Repository]:
    """A Repository without a model."""
    shutil.copytree(prepared.folder / "empty", tmp_path / "data")
    with repository(tmp_path / "data", database_url, copied=True) as opened:
        yield opened


@pytest.fixture
def repo(tmp_path: Path, prepared: Prepared, database_url: str | None) -> Iterator[Repository]:
    """A Repository with the tiny model, whose rounds close with two contributions."""
    shutil.copytree(prepared.folder / "repo", tmp_path / "data")
    with repository(tmp_path / "data", database_url, copied=True) as opened:
        yield opened


@pytest.fixture
def rejected_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let rejected bytes stay for the collection, as where the store was away for a moment."""

    def away(*_: object) -> None:
        raise StorageUnavailable("The store is away.")

    monkeypatch.setattr("coldfusion_server.services.garbage.remove_rejected", away)
