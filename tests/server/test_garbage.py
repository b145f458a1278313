"""What garbage collection takes and what it leaves, on every kind of store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
import structlog
from sqlalchemy import select, update

from coldfusion_server import collector
from coldfusion_server.db.tables import BaseRow, CandidateRow, ContributionRow
from coldfusion_server.services import cards, garbage, leases, publishing
from coldfusion_server.services.closing import close_by_hand
from coldfusion_server.services.garbage import Collected, collect
from coldfusion_server.services.usage import all_usage
from coldfusion_server.services.withdrawal import withdraw
from coldfusion_server.storage import ListedObject
from coldfusion_server.storage.local import LocalStore
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import (
    ConfigurationError,
    StateConflict,
    StorageUnavailable,
)
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.contributions import Withdrawal
from tests.s3 import stores
from tests.server.backends import Backend
from tests.server.gated import fused, gated
from tests.server.repository import (
    MODEL,
    Repository,
    body_file,
    body_of,
    repository,
    tiny_tensors,
)
from tests.shared.checkpoints import file_bytes, read_file

STORES = ("local", "moto", "rgw")

pytestmark = pytest.mark.usefixtures("rejected_stay")


def later(repo: Repository, hours: float = 25) -> None:
    """Let so many hours pass for the Repository; what stores tell is of the real clock."""
    repo.clock.now = datetime.now(UTC) + timedelta(hours=hours)


def objects(repo: Repository) -> set[str]:
    return {listed.sha256 for listed in repo.ctx.store.objects()}


def named(repo: Repository) -> set[str]:
    """Return the digests of all that bases are made of."""
    pages = repo.get(f"/v1/models/{MODEL}/bases")["items"]
    manifests = [Manifest.model_validate(item["manifest"]) for item in pages]
    return {
        file.sha256
        for manifest in manifests
        for file in [*manifest.files, *manifest.master, *manifest.optimizer_state]
    }


def read_object(repo: Repository, digest: str) -> bytes:
    source = repo.ctx.store.source(digest)
    try:
        raw = bytearray(source.size)
        source.read_into(0, memoryview(raw))
        return bytes(raw)
    finally:
        source.close()


def files_of(repo: Repository, contribution: str) -> list[str]:
    receipt = repo.contributor().receipt(contribution)
    return [file["sha256"] for file in receipt["files"]]


def broken_file(seed: int = 1) -> bytes:
    """Return a file that screening rejects."""
    body = body_of(tiny_tensors(), seed)
    body["encoder.layer.0.dense.bias"][0] = np.nan
    return file_bytes(body)


def one_round(repo: Repository, base: str = "v0", **policy: Any) -> list[str]:
    """Let two contributors take part in a round; return their contributions."""
    shown = repo.get(f"/v1/models/{MODEL}/bases/{base}")
    (weights,) = [f for f in shown["manifest"]["files"] if f["path"] == "model.safetensors"]
    tensors = read_file(read_object(repo, weights["sha256"]))
    ids = []
    for seed, name in enumerate(("ann", "bob")):
        raw = file_bytes(body_of(tensors, 100 * int(base[1:]) + seed))
        ids.append(repo.contributor(name).contribute(raw, base=base))
    repo.work()
    close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))
    repo.work()
    assert repo.get(f"/v1/models/{MODEL}")["current"] == f"v{int(base[1:]) + 1}"
    return ids


def keep(repo: Repository, rounds: int | None) -> None:
    client = repo.client(repo.token("max", "maintainer"))
    policy = {"min_contributions": 2, "keep_contributions": rounds}
    answer = client.put(f"/v1/models/{MODEL}/policy", json=policy)
    assert answer.status_code == 200, answer.text
    assert answer.json()["policy"]["keep_contributions"] == rounds


def heaps(found: Collected) -> dict[str, int]:
    return {reason.value: heap.objects for reason, heap in found.garbage.items()}


@pytest.fixture(params=STORES)
def anywhere(
    request: pytest.FixtureRequest, tmp_path: Path, backend: Backend
) -> Iterator[Repository]:
    """A Repository with the tiny model on each kind of store."""
    with ExitStack() as stack:
        store = None
        if request.param != "local":
            store = stores.s3_case(request.getfixturevalue(request.param)).store
        url = stack.enter_context(backend.database())
        opened = stack.enter_context(repository(tmp_path / "data", url, store=store))
        opened.model()
        yield opened


def test_what_nothing_needs_goes_and_the_rest_stays(anywhere: Repository) -> None:
    repo = anywhere
    first = one_round(repo)
    second = one_round(repo, "v1")
    waiting = repo.contributor("cyd").contribute(file_bytes(body_of(tiny_tensors(), 7)), base="v2")
    rejected = repo.contributor("dan").contribute(broken_file(), base="v2")
    repo.work()
    unknown = repo.ctx.store.put([b"what a fuse that was killed has left"]).sha256
    declared = repo.contributor("eve").declare(body_file(9), base="v2").json()["contribution"]["id"]
    keep(repo, 1)
    everything = objects(repo)

    assert heaps(collect(repo.ctx, "gc")) == {}, "everything is young"
    later(repo)
    dry = collect(repo.ctx, "gc", dry_run=True)
    assert objects(repo) == everything
    found = collect(repo.ctx, "gc")
    assert heaps(found) == heaps(dry) == {"past retention": 2, "rejected": 1, "unknown": 1}
    assert (found.total, found.erased) == (dry.total, 2)
    gone = {digest for one in (*first, rejected) for digest in files_of(repo, one)} | {unknown}
    assert objects(repo) == everything - gone
    assert named(repo) <= objects(repo)
    for kept in (*second, waiting):
        assert set(files_of(repo, kept)) <= objects(repo)
    assert found.kept.objects == len(objects(repo))
    assert heaps(collect(repo.ctx, "gc")) == {}

    events = [event for event in repo.get("/v1/events?limit=500") if "erased" in event["type"]]
    assert [(event["type"], event["data"]["contribution"]) for event in events] == [
        ("contribution.erased", one) for one in first
    ]
    receipt = repo.contributor().receipt(first[0])
    assert datetime.fromisoformat(receipt["erased_at"]) == repo.clock.now
    assert repo.contributor().receipt(second[0])["erased_at"] is None
    # The upload under way goes on.
    eve = repo.contributor("eve")
    eve.upload(eve.client.get(f"/v1/contributions/{declared}/upload").json(), body_file(9))
    assert eve.complete(declared).status_code == 200


def test_uploads_that_nothing_waits_for_go(anywhere: Repository) -> None:
    repo = anywhere
    ann = repo.contributor()
    alive, dead = ann.sent(body_file(1)), ann.sent(body_file(2))
    with repo.ctx.database.write() as session:
        row = session.scalars(select(ContributionRow).where(ContributionRow.id == dead)).one()
        row.state = ContributionState.REJECTED
    assert collect(repo.ctx, "gc", dry_run=True).uploads == 1
    assert sorted(repo.ctx.store.pending_uploads()) == sorted([f"{alive}.0", f"{dead}.0"])
    assert collect(repo.ctx, "gc").uploads == 1
    assert repo.ctx.store.pending_uploads() == [f"{alive}.0"]
    assert ann.complete(alive).status_code == 200


def test_what_is_erased_stays_erased_where_the_policy_is_set_back(repo: Repository) -> None:
    ids = one_round(repo)
    keep(repo, 0)
    later(repo)
    crash = Deleting(repo.ctx.store, after=0)
    with pytest.raises(Killed):
        collect(crash.into(repo), "gc")
    keep(repo, None)
    assert repo.contributor().receipt(ids[0])["erased_at"] is not None
    repo.clock.advance(hours=1)
    assert heaps(collect(repo.ctx, "gc")) == {"past retention": 2}
    assert named(repo) == objects(repo)


def test_a_file_that_another_contribution_needs_stays(repo: Repository) -> None:
    repo.model("demo/other")
    raw = body_file(1)
    ids = [
        repo.contributor("ann").contribute(raw),
        repo.contributor("bob").contribute(body_file(2)),
    ]
    repo.contributor("cyd").contribute(raw, model="demo/other")
    repo.work()
    close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))
    repo.work()
    keep(repo, 0)
    later(repo)
    assert heaps(collect(repo.ctx, "gc")) == {"past retention": 1}
    assert files_of(repo, ids[0])[0] in objects(repo)
    assert repo.contributor().receipt(ids[0])["erased_at"] is None
    assert repo.contributor().receipt(ids[1])["erased_at"] is not None


def test_two_collections_never_run_at_once(repo: Repository) -> None:
    with leases.held(repo.ctx, garbage.LEASE, "another"):
        with pytest.raises(StateConflict, match="at this moment"):
            collect(repo.ctx, "gc")
        collect(repo.ctx, "gc", dry_run=True)
    collect(repo.ctx, "gc")


def test_a_store_of_another_repository_is_left_alone(repo: Repository, tmp_path: Path) -> None:
    collect(repo.ctx, "gc")
    everything = objects(repo)
    with repository(tmp_path / "other", store=repo.ctx.store) as other:
        later(other)
        for dry_run in (True, False):
            with pytest.raises(ConfigurationError, match="another Repository"):
                collect(other.ctx, "gc", dry_run=dry_run)
    assert objects(repo) == everything


# What happens between a collection's look and its deed.


class Killed(BaseException):
    """The process ends here."""


class Deleting(LocalStore):
    """A local store with something that happens at a point of a collection."""

    def __init__(self, store: Any, *, after: int | None = None) -> None:
        super().__init__(store.root)
        self.after = after
        self.listed: Callable[[], object] = lambda: None
        self.deleting: Callable[[str], object] = lambda digest: None

    def into(self, repo: Repository) -> Any:
        return replace(repo.ctx, store=self)

    def objects(self) -> Iterator[ListedObject]:
        yield from list(super().objects())
        self.listed()

    def delete(self, digest: str) -> None:
        if self.after == 0:
            raise Killed
        if self.after is not None:
            self.after -= 1
        self.deleting(digest)
        super().delete(digest)


@pytest.mark.parametrize("how", ["cut", "another", "no list"])
@pytest.mark.parametrize("table", [BaseRow, CandidateRow])
def test_what_may_be_of_a_damaged_manifests_model_stays_and_the_rest_goes(
    repo: Repository, table: Any, how: str
) -> None:
    gated(repo)
    fused(repo)
    repo.model("acme/other")
    ann = repo.contributor()
    ann.contribute(broken_file())
    gone = ann.contribute(broken_file(2), model="acme/other")
    repo.work()
    (removed,) = files_of(repo, gone)
    repo.ctx.store.put([b"left by a process that was killed"])
    later(repo)
    before = objects(repo)
    with repo.ctx.database.write() as session:
        row = session.scalars(select(table).where(table.model_id == 1)).one()
        good, name = row.manifest, "v0" if table is BaseRow else f"candidate {row.id}"
        row.manifest = {"cut": good[:-20], "another": "{}", "no list": '{"files": 7}'}[how]
    for dry_run in (True, False):
        found = collect(repo.ctx, "gc", dry_run=dry_run)
        assert heaps(found) == {"rejected": 1}
        (sentence,) = found.damaged
        assert sentence.startswith(f"The manifest of {MODEL} {name} was changed in the database")
    assert objects(repo) == before - {removed}
    with repo.ctx.database.write() as session:
        session.execute(update(table).where(table.id == row.id).values(manifest=good))
    found = collect(repo.ctx, "gc")
    assert (heaps(found), found.damaged) == ({"rejected": 1, "unknown": 1}, [])


def test_what_is_erased_goes_at_once_only_where_nothing_is_damaged(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    ids = [repo.contributor().contribute(body_file(seed)) for seed in (1, 2)]
    repo.work()
    with repo.ctx.database.write() as session:
        good = session.scalars(select(BaseRow.manifest)).one()
    for contribution, manifest in zip(ids, ("{}", good), strict=True):
        with repo.ctx.database.write() as session:
            session.execute(update(BaseRow).values(manifest=manifest))
        withdraw(repo.ctx, contribution, Withdrawal(erase=True), repo.principal())
        stays = {*files_of(repo, contribution)} <= objects(repo)
        assert stays == (manifest != good)


@pytest.mark.parametrize("how", ["cut", "another"])
def test_usage_names_what_is_damaged_and_counts_the_rest(repo: Repository, how: str) -> None:
    one_round(repo)
    who = repo.principal("op", "admin")
    whole = all_usage(repo.ctx, who)
    assert [model.damaged for model in whole.models] == [[]]
    with repo.ctx.database.write() as session:
        row = session.scalars(select(BaseRow).where(BaseRow.number == 1)).one()
        row.manifest = row.manifest[:-20] if how == "cut" else "{}"
    found = all_usage(repo.ctx, who)
    (model,) = found.models
    (sentence,) = model.damaged
    assert sentence.startswith(f"The manifest of {MODEL} v1 was changed in the database")
    assert (found.total_bytes, model.bases) == (whole.total_bytes, 2)
    assert model.base_bytes == whole.models[0].base_bytes


def test_a_declaration_before_the_deed_keeps_the_object(repo: Repository) -> None:
    repo.contributor().contribute(broken_file())
    repo.work()
    later(repo)
    store, bob = Deleting(repo.ctx.store), repo.contributor("bob")
    declared: list[str] = []
    store.listed = lambda: declared.append(bob.sent(broken_file()))
    assert heaps(collect(store.into(repo), "gc")) == {}
    assert files_of(repo, declared[0])[0] in objects(repo)


def test_a_declaration_during_the_deed_waits_and_sends_the_bytes_again(repo: Repository) -> None:
    repo.contributor().contribute(broken_file())
    repo.work()
    later(repo)
    store, bob = Deleting(repo.ctx.store), repo.contributor("bob")
    declared: list[str] = []
    threads: list[Thread] = []

    def deleting(digest: str) -> None:
        threads.append(Thread(target=lambda: declared.append(bob.sent(broken_file()))))
        threads[0].start()
        threads[0].join(0.5)
        assert not declared, "the declaration has to wait until the object is gone"

    store.deleting = deleting
    assert heaps(collect(store.into(repo), "gc")) == {"rejected": 1}
    threads[0].join()
    assert bob.complete(declared[0]).status_code == 200
    repo.work()
    assert bob.receipt(declared[0])["state"] == "rejected"
    assert "NaN" in bob.receipt(declared[0])["reason"]
    assert files_of(repo, declared[0])[0] in objects(repo)


def test_what_is_stored_once_more_is_young_again(repo: Repository) -> None:
    repo.clock.now = datetime.now(UTC)
    raw = b"the output of a fuse that is tried again"
    digest = repo.ctx.store.put([raw]).sha256
    path = repo.ctx.store.local_path(digest)
    assert path is not None
    old = time.time() - 48 * 3600
    os.utime(path, (old, old))
    store = Deleting(repo.ctx.store)
    store.listed = lambda: repo.ctx.store.put([raw])
    collect(store.into(repo), "gc")
    assert digest in objects(repo)
    os.utime(path, (old, old))
    assert heaps(collect(repo.ctx, "gc")) == {"unknown": 1}


def test_a_fuse_whose_output_was_taken_is_done_again(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2):
        repo.contributor(f"c{seed}").contribute(body_file(seed))
    repo.work()
    close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))
    really, taken = publishing._lost_file, list[str]()

    def check(ctx: Any, round_id: int) -> str | None:
        if not taken:
            with ctx.database.read() as session:
                (text,) = session.scalars(select(CandidateRow.manifest))
            manifest = Manifest.model_validate_json(text)
            taken.append(manifest.files[-1].sha256)
            ctx.store.delete(taken[0])
        return really(ctx, round_id)

    monkeypatch.setattr(publishing, "_lost_file", check)
    repo.work()
    shown = repo.get(f"/v1/models/{MODEL}/rounds/1")
    assert (shown["state"], "gone again" in shown["reason"]) == ("failed", True)
    repo.clock.advance(minutes=1)
    repo.work()
    assert repo.get(f"/v1/models/{MODEL}")["current"] == "v1"
    assert taken[0] in named(repo) <= objects(repo)


def test_a_model_whose_files_were_taken_is_not_made(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_card = cards.with_card

    def taking(ctx: Any, manifest: Manifest, kept: Any) -> Manifest:
        ctx.store.delete(manifest.files[-1].sha256)
        return with_card(ctx, manifest, kept)

    monkeypatch.setattr(cards, "with_card", taking)
    with pytest.raises(StorageUnavailable, match="gone again"):
        repo.model("demo/second", tiny_tensors(5))
    assert repo.client().get("/v1/models/demo/second").status_code == 404


# The scheduler's own.


def test_the_collector_collects_and_tells_the_log(repo: Repository) -> None:
    repo.ctx.store.put([b"left"])
    later(repo)
    stop = Event()
    with structlog.testing.capture_logs() as logs:
        thread = Thread(target=collector.run_collector, args=(repo.ctx, stop, 0.0))
        thread.start()
        until = time.monotonic() + 300
        while not any(log["event"] == "garbage collected" for log in logs):
            assert time.monotonic() < until
            time.sleep(0.02)
        stop.set()
        thread.join(300)
    assert not thread.is_alive()
    (told,) = [log for log in logs if log["event"] == "garbage collected"]
    assert (told["unknown"], told["bytes"]) == (1, 4)


def test_the_collector_goes_on_after_a_failure(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "RETRY_SECONDS", 0.01)
    outcomes: list[Any] = [StorageUnavailable("no store"), ValueError("a fault"), Collected(False)]
    monkeypatch.setattr(collector, "collect", lambda ctx, holder: raised(outcomes.pop(0)))
    stop = Event()
    with structlog.testing.capture_logs() as logs:
        thread = Thread(target=collector.run_collector, args=(repo.ctx, stop, 0.0))
        thread.start()
        until = time.monotonic() + 300
        while outcomes and time.monotonic() < until:
            time.sleep(0.01)
        stop.set()
        thread.join(300)
    assert [log["event"] for log in logs] == ["garbage collection failed"] * 2 + [
        "garbage collected"
    ]


def raised(outcome: Any) -> Any:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
