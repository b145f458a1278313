"""What the tests of the hub door share: a Repository with two bases, to be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from coldfusion_server.services import models
from coldfusion_server.services.closing import close_due
from coldfusion_shared.schemas.models import Policy
from coldfusion_shared.weights.checkpoint import Checkpoint
from tests.server.repository import ANY_UPDATE, MODEL, Repository, body_of, repository
from tests.shared.checkpoints import file_bytes
from tests.tiny_models import tiny_bert

PRIVATE = "demo/private"
CARD = "---\nlicense: apache-2.0\nlanguage:\n- en\nauto_map: evil\n---\n# Tiny\n"


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> Iterator[None]:
    """Keep what the server logs as values."""
    structlog.configure(
        processors=[structlog.testing.LogCapture()], cache_logger_on_first_use=False
    )
    yield
    structlog.reset_defaults()


@dataclass(frozen=True)
class Library:
    """
    A Repository to read from.

    Attributes:
        repo: it has a public model of two bases, and a private one.
        token: that may read both.
        versions: digests of the files of each base, by path.
    """

    repo: Repository
    token: str
    versions: list[dict[str, str]]

    def commit(self, version: str) -> str:
        """Return the commit id of a base."""
        base = self.repo.get(f"/v1/models/{MODEL}/bases/{version}")
        return str(base["digest"][:40])


def fill(repo: Repository, pretrained: Path) -> Library:
    """Make the models, and let a round be fused."""
    for name, public in ((MODEL, True), (PRIVATE, False)):
        policy = Policy(screening=ANY_UPDATE, min_contributions=1)
        models.create_model(repo.ctx, name, pretrained, "lab/tiny-bert", policy, public=public)
    with Checkpoint.from_folder(pretrained) as opened:
        tensors = {
            name: item.values(0, item.span.elements).reshape(item.span.shape)
            for name, item in opened.tensors.items()
        }
    repo.contributor("ann").contribute(file_bytes(body_of(tensors, 1)))
    repo.work()
    close_due(repo.ctx)
    repo.work()
    versions = [
        {
            file["path"]: file["sha256"]
            for file in repo.get(f"/v1/models/{MODEL}/bases/{version}")["manifest"]["files"]
        }
        for version in ("v0", "v1")
    ]
    return Library(repo, repo.token("rea", "reader"), versions)


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder, with a card of its own."""
    folder = tiny_bert(tmp_path_factory.mktemp("hub") / "pretrained")
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, pretrained: Path) -> Iterator[Library]:
    """The Repository on a disk."""
    with repository(tmp_path_factory.mktemp("library") / "data") as repo:
        yield fill(repo, pretrained)
