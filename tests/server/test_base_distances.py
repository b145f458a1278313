"""How far bases are from v0: measured in quiet moments, once; failures harm nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from coldfusion_server.db.tables import LeaseRow
from coldfusion_server.services import leases
from coldfusion_server.services.base_distances import TRY_AGAIN, measure_next
from coldfusion_server.services.closing import close_by_hand
from coldfusion_server.services.distances import relative_distance
from coldfusion_server.services.heartbeat import WorkStopped
from coldfusion_server.worker import work_once
from coldfusion_shared.errors import StorageUnavailable
from tests.dashboard.measured import grow
from tests.server.backends import Backend
from tests.server.repository import MODEL, Repository, body_of, repository, tiny_tensors
from tests.shared.checkpoints import Array, file_bytes, read_file

PRIVATE = "acme/secret"
MEASURING = "coldfusion_server.services.base_distances.relative_distance"


@pytest.fixture
def repo(tmp_path: Path, backend: Backend) -> Iterator[Repository]:
    with backend.database() as url, repository(tmp_path / "data", url) as opened:
        opened.model(min_contributions=1)
        yield opened


def weights(repo: Repository, version: str) -> dict[str, Array]:
    answer = repo.client().get(f"/v1/models/{MODEL}/bases/{version}/files/model.safetensors")
    return read_file(answer.content)


def publish(repo: Repository, number: int) -> None:
    """Publish the next base onto v<number>."""
    body = body_of(weights(repo, f"v{number}"), number, scale=0.05)
    repo.contributor().contribute(file_bytes(body), base=f"v{number}")
    repo.work()
    close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))
    repo.work()
    assert repo.get(f"/v1/models/{MODEL}")["current"] == f"v{number + 1}"


def distance(repo: Repository, version: str) -> Any:
    return repo.get(f"/v1/models/{MODEL}/bases/{version}")["distance"]


def expected(repo: Repository, version: str) -> float:
    """Return the distance by numpy, over what every contribution can move."""
    first, other = weights(repo, "v0"), weights(repo, version)
    names = sorted(body_of(tiny_tensors(), 0))
    before = np.concatenate([first[name].ravel() for name in names]).astype(np.float64)
    after = np.concatenate([other[name].ravel() for name in names]).astype(np.float64)
    return float(np.linalg.norm(after - before) / np.linalg.norm(before))


def happened(repo: Repository) -> list[Any]:
    events = repo.get("/v1/events?limit=500")
    return [event["data"] for event in events if event["type"] == "base.measured"]


def test_a_base_is_as_far_from_v0_as_numpy_says(repo: Repository) -> None:
    assert distance(repo, "v0") == 0
    publish(repo, 0)
    publish(repo, 1)
    while measure_next(repo.ctx, "worker"):
        pass
    for version in ("v1", "v2"):
        assert expected(repo, version) > 0.001
        assert distance(repo, version) == pytest.approx(expected(repo, version), rel=1e-6)
    assert {"version": "v2", "distance": distance(repo, "v2")} in happened(repo)


def test_each_is_measured_once_and_the_newest_first(repo: Repository) -> None:
    grow(repo, 3)
    for known in ([3], [3, 2], [3, 2, 1]):
        assert measure_next(repo.ctx, "worker")
        assert [n for n in (3, 2, 1) if distance(repo, f"v{n}") is not None] == known
    assert not measure_next(repo.ctx, "worker")
    assert len(happened(repo)) == 3


def test_a_worker_measures_only_where_it_finds_nothing_else(repo: Repository) -> None:
    grow(repo, 1)
    repo.contributor().contribute(file_bytes(body_of(tiny_tensors(), 1)), base="v1")
    assert work_once(repo.ctx, "worker")
    assert distance(repo, "v1") is None
    # Then the differences, which somebody may ask for, and then this.
    assert not work_once(repo.ctx, "worker")
    assert distance(repo, "v1") is None
    assert not work_once(repo.ctx, "worker")
    assert distance(repo, "v1") == 0


def test_a_store_that_is_away_is_asked_again_later(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> Any:
        raise StorageUnavailable("Away.")

    grow(repo, 1)
    with monkeypatch.context() as broken:
        broken.setattr(MEASURING, away)
        assert measure_next(repo.ctx, "worker")
        # It does not ask again and again.
        assert not measure_next(repo.ctx, "worker")
    assert not measure_next(repo.ctx, "worker")
    repo.clock.advance(seconds=TRY_AGAIN.total_seconds())
    assert measure_next(repo.ctx, "worker")
    assert distance(repo, "v1") == 0


def test_one_that_cannot_be_measured_holds_up_no_other(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = relative_distance
    grow(repo, 2)
    tried: list[int] = []

    def fails_first(*args: Any) -> Any:
        tried.append(1)
        if len(tried) == 1:
            raise RuntimeError("a fault of ours")
        return measured(*args)

    monkeypatch.setattr(MEASURING, fails_first)
    assert measure_next(repo.ctx, "worker") and measure_next(repo.ctx, "worker")
    assert (distance(repo, "v2"), distance(repo, "v1")) == (None, 0)


def test_a_worker_that_ends_in_the_middle_leaves_it_to_another(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(*_: Any) -> Any:
        raise WorkStopped

    grow(repo, 1)
    with monkeypatch.context() as stopped, pytest.raises(WorkStopped):
        stopped.setattr(MEASURING, ends)
        measure_next(repo.ctx, "one")
    repo.clock.advance(seconds=TRY_AGAIN.total_seconds())
    assert measure_next(repo.ctx, "another")
    assert distance(repo, "v1") == 0


def test_who_has_lost_the_lease_writes_nothing(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: Any) -> float:
        repo.clock.advance(seconds=repo.ctx.settings.lease_seconds + 1)
        with repo.ctx.database.read() as session:
            key = session.scalars(select(LeaseRow.key).where(
                LeaseRow.key.startswith("distance:"))).one()  # fmt: skip
        assert leases.acquire(repo.ctx, key, "another") is not None
        return 7.0

    grow(repo, 1)
    monkeypatch.setattr(MEASURING, slow)
    assert measure_next(repo.ctx, "one")
    assert distance(repo, "v1") is None and happened(repo) == []


def test_its_reads_keep_its_lease(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = relative_distance
    asked: list[int] = []

    def spied(ctx: Any, new: Any, old: Any, alive: Any) -> Any:
        def noted() -> None:
            asked.append(1)
            # Each read takes most of a lease's time.
            repo.clock.advance(seconds=0.9 * repo.ctx.settings.lease_seconds)
            alive()

        return measured(ctx, new, old, noted)

    grow(repo, 1)
    monkeypatch.setattr(MEASURING, spied)
    assert measure_next(repo.ctx, "one")
    assert len(asked) > 2 and distance(repo, "v1") == 0


def test_the_etag_tells_what_is_known(repo: Repository) -> None:
    grow(repo, 1)
    path = f"/v1/models/{MODEL}/bases/v1"
    before = repo.client().get(path).headers["etag"]
    measure_next(repo.ctx, "worker")
    answer = repo.client().get(path, headers={"If-None-Match": before})
    assert (answer.status_code, answer.json()["distance"]) == (200, 0)
    after = answer.headers["etag"]
    assert repo.client().get(path, headers={"If-None-Match": after}).status_code == 304


def test_what_was_measured_of_private_models_is_told_to_no_stranger(repo: Repository) -> None:
    repo.model(PRIVATE, public=False)
    grow(repo, 1, PRIVATE)
    assert measure_next(repo.ctx, "worker")
    assert happened(repo) == []
    events = repo.get("/v1/events?limit=500", repo.token("rea", "reader"))
    assert [event["model"] for event in events if event["type"] == "base.measured"] == [PRIVATE]
