"""Differences between bases: made in quiet moments, offered to who may read, given up with time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldfusion_server.services import differences
from coldfusion_server.services.closing import close_by_hand
from coldfusion_server.services.garbage import collect
from coldfusion_server.services.references import DIFFERENCES
from coldfusion_shared.errors import StorageFull, StorageUnavailable
from coldfusion_shared.weights.checkpoint import FileSource
from coldfusion_shared.weights.differences.apply import apply_difference
from coldfusion_shared.weights.differences.container import Pair
from tests.server.backends import Backend
from tests.server.repository import MODEL, Repository, body_of, repository, tiny_tensors
from tests.shared.checkpoints import Array, file_bytes, read_file

PATH = "model.safetensors"


def large_tensors() -> dict[str, Array]:
    """Return a model whose file is worth a difference."""
    wide = np.random.default_rng(3).standard_normal((600, 500)).astype(np.float32)
    return {**tiny_tensors(), "encoder.layer.1.dense.weight": wide}


@pytest.fixture
def repo(tmp_path: Path, backend: Backend) -> Iterator[Repository]:
    with backend.database() as url, repository(tmp_path / "data", url) as opened:
        opened.model(tensors=large_tensors(), min_contributions=1)
        yield opened


def weights(repo: Repository, version: str) -> bytes:
    answer = repo.client().get(f"/v1/models/{MODEL}/bases/{version}/files/{PATH}")
    assert answer.status_code == 200
    return answer.content


def go_round(repo: Repository, number: int) -> None:
    body = body_of(read_file(weights(repo, f"v{number}")), number)
    repo.contributor().contribute(file_bytes(body), base=f"v{number}")
    repo.work()
    close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))
    repo.work()
    assert repo.get(f"/v1/models/{MODEL}")["current"] == f"v{number + 1}"


def offered(repo: Repository, version: str) -> Any:
    return repo.get(f"/v1/models/{MODEL}/bases/{version}/differences")


def test_a_new_base_can_be_had_by_its_difference(repo: Repository, tmp_path: Path) -> None:
    assert offered(repo, "v0") == []
    go_round(repo, 0)
    (one,) = offered(repo, "v1")
    old, new = weights(repo, "v0"), weights(repo, "v1")
    assert (one["path"], one["size"] < 0.8 * len(new)) == (PATH, True)
    url = f"/v1/models/{MODEL}/bases/v1/differences/{one['sha256']}"
    answer = repo.client().get(url)
    assert (answer.status_code, answer.headers["etag"]) == (200, f'"{one["sha256"]}"')
    assert len(answer.content) == one["size"]
    part = repo.client().get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, answer.content[10:20])

    (tmp_path / "old").write_bytes(old)
    made = io.BytesIO()
    pair = Pair(len(old), one["old_sha256"], len(new), one["new_sha256"])
    source = FileSource(tmp_path / "old")
    apply_difference(source, io.BytesIO(answer.content), pair, made.write)
    source.close()
    assert made.getvalue() == new


def test_it_is_made_once(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    go_round(repo, 0)
    monkeypatch.setattr(differences, "write_difference", None)
    assert differences.make_next(repo.ctx, "worker") is False


def test_one_that_saves_little_is_not_kept(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(differences, "WORTH", 0.01)
    go_round(repo, 0)
    assert offered(repo, "v1") == []
    assert differences.make_next(repo.ctx, "worker") is False


def test_a_disk_without_room_costs_no_base(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise StorageFull("No room.")

    monkeypatch.setattr(differences, "write_difference", full)
    go_round(repo, 0)
    assert offered(repo, "v1") == []
    assert differences.make_next(repo.ctx, "worker") is False


def test_one_that_is_gone_before_it_is_named_is_given_up(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: Any, files: list[Any]) -> None:
        if files:
            raise StorageUnavailable("It was stored and is gone again.")

    monkeypatch.setattr(differences, "check_stored", gone)
    go_round(repo, 0)
    assert offered(repo, "v1") == []
    monkeypatch.setattr(differences, "write_difference", None)
    assert differences.make_next(repo.ctx, "worker") is False


def test_only_those_of_the_newest_bases_are_kept(repo: Repository) -> None:
    # To this collection all that was ever stored is old.
    later = replace(repo.ctx, now=lambda: datetime.now(UTC) + timedelta(days=2))
    digests = []
    for number in range(DIFFERENCES + 1):
        go_round(repo, number)
        (one,) = offered(repo, f"v{number + 1}")
        digests.append(one["sha256"])
        collect(later, "gc")
    assert offered(repo, "v1") == []
    assert [repo.ctx.store.exists(digest) for digest in digests] == [False, *[True] * DIFFERENCES]
    gone = repo.client().get(f"/v1/models/{MODEL}/bases/v1/differences/{digests[0]}")
    assert (gone.status_code, gone.json()["code"]) == (404, "file_not_found")
