"""A provider, and a Repository where people sign in by it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from coldfusion_server.oidc.fetching import Fetcher
from tests.oidc.provider import DASHBOARD, SECRET, Provider, running
from tests.oidc.visit import settings_for
from tests.server.repository import Repository, repository


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[structlog.testing.LogCapture]:
    """Keep what the server logs as values."""
    capture = structlog.testing.LogCapture()
    structlog.configure(processors=[capture], cache_logger_on_first_use=False)
    yield capture
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a provider that is as slow as the machine, unless a test says for how long."""
    monkeypatch.setattr(Fetcher.__init__, "__defaults__", (120.0,))


@pytest.fixture(scope="module")
def _provider() -> Iterator[Provider]:
    with running() as provider:
        yield provider


@pytest.fixture
def provider(_provider: Provider) -> Iterator[Provider]:
    """A provider that behaves, with somebody called ann before the browser."""
    kept = dict(_provider.person), list(_provider.keys)
    yield _provider
    _provider.person, _provider.keys = kept
    _provider.lies, _provider.alg = {}, "RS256"
    _provider.faults, _provider.asked = {}, []
    _provider.clients[DASHBOARD].secret = SECRET


@pytest.fixture(scope="session")
def _empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a Repository without a model, to be copied for each test."""
    folder = tmp_path_factory.mktemp("empty") / "data"
    with repository(folder):
        return folder


@pytest.fixture
def folder(tmp_path: Path, _empty: Path) -> Path:
    """A data folder of the test's own."""
    return Path(shutil.copytree(_empty, tmp_path / "data"))


@pytest.fixture
def repo(folder: Path, provider: Provider) -> Iterator[Repository]:
    """A Repository without a model, where staff may contribute and chiefs maintain."""
    with repository(folder, copied=True, **settings_for(provider)) as opened:
        provider.now = lambda: opened.clock.now.timestamp()
        yield opened
