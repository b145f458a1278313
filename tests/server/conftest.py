"""The server's fixtures."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.server.repository import Repository, repository


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep what the server logs as values, so that a command's own streams stay its own."""
    capture = structlog.testing.LogCapture()
    structlog.configure(processors=[capture], cache_logger_on_first_use=False)
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data folders that were made once and are copied for each test."""
    folder = tmp_path_factory.mktemp("prepared")
    with repository(folder / "empty"):
        pass
    with repository(folder / "tiny") as opened:
        opened.model()
    return folder


@pytest.fixture
def empty(tmp_path: Path, prepared: Path) -> Iterator[Repository]:
    """A Repository without a model."""
    shutil.copytree(prepared / "empty", tmp_path / "data")
    with repository(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def repo(tmp_path: Path, prepared: Path) -> Iterator[Repository]:
    """A Repository with the tiny model, whose rounds close with two contributions."""
    shutil.copytree(prepared / "tiny", tmp_path / "data")
    with repository(tmp_path / "data") as opened:
        yield opened
