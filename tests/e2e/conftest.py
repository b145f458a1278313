"""What the tests of the real programs share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.programs import MODEL, Server
from tests.tiny_models import tiny_bert


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the module's own, with a public model whose rounds do not close."""
    folder = tmp_path_factory.mktemp("repository")
    server = Server(folder / "data")
    server.start()
    try:
        pretrained = tiny_bert(folder / "pretrained")
        server.command(
            "model", "create", MODEL, "--from", str(pretrained), "--min-contributions", "90",
            "--public",
        )  # fmt: skip
        yield server
    finally:
        server.end()
