"""A new base by its difference from the one that the client has: real server, real client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldfusion_client import Client
from coldfusion_client.api import Api
from tests.e2e.programs import Server, wait_until
from tests.shared.checkpoints import file_bytes, read_file
from tests.tiny_models import tiny_bert

MODEL = "lab/large"
PATH = "model.safetensors"


@pytest.fixture(scope="module", autouse=True)
def difference(server: Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Make a model whose newest base differs from the one before in a file that is worth it."""
    folder = tmp_path_factory.mktemp("large")
    base = tiny_bert(folder / "pretrained", hidden=256)
    server.command(
        "model", "create", MODEL, "--from", str(base), "--min-contributions", "1", "--public"
    )
    tensors = read_file((base / PATH).read_bytes())
    rng = np.random.default_rng(0)
    tuned = {
        name: values + (1e-4 * rng.standard_normal(values.shape)).astype(np.float32)
        if values.dtype == np.float32
        else values
        for name, values in tensors.items()
    }
    (folder / "tuned").mkdir()
    (folder / "tuned" / PATH).write_bytes(file_bytes(tuned))
    token = server.command("token", "create", "ann", "--role", "contributor")
    with Client(server.url, token, cache=folder / "cache of ann") as client:
        client.contribute(MODEL, folder / "tuned", base="v0", encoding="full")
    wait_until(lambda: server.get(f"/models/{MODEL}/bases/latest/differences"), "the difference")


@pytest.fixture
def client(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("COLDFUSION_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("COLDFUSION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Client(server.url) as opened:
        yield opened


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list of what is opened for download: paths, and digests of differences."""
    seen: list[str] = []
    file, difference = Api.open_file, Api.open_difference

    def open_file(api: Api, model: str, version: str, path: str, *span: Any) -> Any:
        seen.append(path)
        return file(api, model, version, path, *span)

    def open_difference(api: Api, model: str, version: str, sha256: str, *span: Any) -> Any:
        seen.append(sha256)
        return difference(api, model, version, sha256, *span)

    monkeypatch.setattr(Api, "open_file", open_file)
    monkeypatch.setattr(Api, "open_difference", open_difference)
    return seen


def published(server: Server) -> tuple[Any, bytes]:
    (one,) = server.get(f"/models/{MODEL}/bases/v1/differences")
    return one, server.object(one["new_sha256"]).read_bytes()


def test_who_has_the_old_base_gets_the_difference(
    server: Server, client: Client, opened: list[str], tmp_path: Path
) -> None:
    difference, new = published(server)
    assert difference["size"] < 0.8 * len(new)
    client.pull(MODEL, "v0", out=tmp_path / "old")
    opened.clear()
    folder = client.pull(MODEL, out=tmp_path / "new")
    assert (folder / PATH).read_bytes() == new
    assert difference["sha256"] in opened and PATH not in opened
    assert not list((tmp_path / "cache" / "partial").glob("*"))


def test_who_has_nothing_gets_the_file(
    server: Server, client: Client, opened: list[str], tmp_path: Path
) -> None:
    folder = client.pull(MODEL, out=tmp_path / "new")
    assert (folder / PATH).read_bytes() == published(server)[1]
    assert PATH in opened


def test_one_that_leads_nowhere_costs_nothing_but_itself(
    server: Server, client: Client, opened: list[str], tmp_path: Path
) -> None:
    difference, new = published(server)
    stored = server.object(difference["sha256"])
    content = stored.read_bytes()
    stored.chmod(0o644)
    stored.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        client.pull(MODEL, "v0", out=tmp_path / "old")
        opened.clear()
        folder = client.pull(MODEL, out=tmp_path / "new")
    finally:
        stored.write_bytes(content)
    assert (folder / PATH).read_bytes() == new
    assert difference["sha256"] in opened and PATH in opened
