"""A round's way: closed by policy or by hand, fused, published once, whatever happens."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, update

from coldfusion_server.db.tables import (
    BaseRow,
    CandidateRow,
    ContributionRow,
    EventRow,
    LeaseRow,
    RoundRow,
)
from coldfusion_server.services import ending, leases, publishing, rounds, screening
from coldfusion_server.services.closing import close_by_hand, close_due
from coldfusion_server.worker import run_worker, work_once
from coldfusion_shared.errors import (
    LeaseLost,
    RoundNotClosable,
    StateConflict,
    StorageFull,
)
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.bases import Manifest
from tests.server.backends import both_databases
from tests.server.repository import (
    MODEL,
    Repository,
    body_file,
    body_of,
    repository,
    tiny_tensors,
)
from tests.shared.checkpoints import Array, file_bytes, read_file

pytestmark = both_databases


def accepted(repo: Repository, seeds: list[int], **where: Any) -> list[str]:
    """Let one contributor for each seed have a contribution accepted; return their ids."""
    ids = [repo.contributor(f"c{s}").contribute(body_file(s), **where) for s in seeds]
    repo.work()
    assert {repo.contributor().receipt(i)["state"] for i in ids} == {"accepted"}
    return ids


def shown(repo: Repository, number: int | str = 1) -> Any:
    return repo.get(f"/v1/models/{MODEL}/rounds/{number}")


def weights_of(repo: Repository, version: str) -> bytes:
    answer = repo.client().get(f"/v1/models/{MODEL}/bases/{version}/files/model.safetensors")
    assert answer.status_code == 200
    return answer.content


def events(repo: Repository, kind: str) -> list[dict[str, Any]]:
    with repo.ctx.database.read() as session:
        return list(session.scalars(select(EventRow.data).where(EventRow.type == kind)))


def closed(repo: Repository) -> None:
    close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))


def test_a_whole_round_publishes_the_mean_as_the_next_base(repo: Repository) -> None:
    ids = accepted(repo, [1])
    assert close_due(repo.ctx) == 0
    ids += accepted(repo, [2])
    assert shown(repo, "open")["missing"] == 0
    assert close_due(repo.ctx) == 1
    assert close_due(repo.ctx) == 0
    assert shown(repo)["state"] == "closed"
    assert repo.work() == 1
    done = shown(repo)
    assert (done["state"], done["result"], done["accepted"]) == ("published", "v1", 2)
    # Counted are the bytes of the updates, which the mean reads once.
    shared = body_of(tiny_tensors(), 1)
    size = sum(array.nbytes for array in shared.values())
    assert done["fused_bytes"] == done["total_bytes"] == 2 * size
    opened = shown(repo, "open")
    assert (opened["number"], opened["base"], opened["accepted"]) == (2, "v1", 0)

    model = repo.get(f"/v1/models/{MODEL}")
    assert (model["current"], model["open_round"], model["contributors"]) == ("v1", 2, 2)
    base = repo.get(f"/v1/models/{MODEL}/bases/latest")
    manifest = Manifest.model_validate(base["manifest"])
    assert manifest.digest() == base["digest"]
    parent = repo.get(f"/v1/models/{MODEL}/bases/v0")
    assert manifest.parent is not None and manifest.parent.digest == parent["digest"]
    assert [item.id for item in manifest.contributions] == ids
    assert [item.weight for item in manifest.contributions] == [0.5, 0.5]
    for file in manifest.files:
        content = repo.client().get(f"/v1/models/{MODEL}/bases/v1/files/{file.path}").content
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (file.sha256, file.size)

    fused, start = read_file(weights_of(repo, "v1")), tiny_tensors()
    bodies = [body_of(start, seed) for seed in (1, 2)]
    assert list(fused) == list(start)
    for name in start:
        if name in bodies[0]:
            mean = np.mean([body[name].astype(np.float64) for body in bodies], axis=0)
            assert np.array_equal(fused[name], mean.astype(np.float32))
        else:
            assert np.array_equal(fused[name], start[name])
    for contribution in ids:
        receipt = repo.contributor().receipt(contribution)
        assert (receipt["state"], receipt["weight"], receipt["result"]) == ("fused", 0.5, "v1")


def test_the_second_round_goes_on_from_the_first(repo: Repository) -> None:
    accepted(repo, [1, 2])
    close_due(repo.ctx)
    repo.work()
    first = read_file(weights_of(repo, "v1"))
    raws = [file_bytes(body_of(first, seed)) for seed in (3, 4)]
    for seed, raw in enumerate(raws):
        repo.contributor(f"d{seed}").contribute(raw, base="v1")
    repo.work()
    assert close_due(repo.ctx) == 1
    repo.work()
    bases = repo.get(f"/v1/models/{MODEL}/bases")["items"]
    assert [(b["version"], b["current"]) for b in bases] == [
        ("v2", True), ("v1", False), ("v0", False)
    ]  # fmt: skip
    assert bases[0]["manifest"]["parent"]["digest"] == bases[1]["digest"]


def test_a_round_waits_for_its_deadline_and_for_its_minimum(empty: Repository) -> None:
    empty.model(min_contributions=2, max_contributions=3, deadline_seconds=3600)
    accepted(empty, [1])
    empty.clock.advance(hours=2)
    assert close_due(empty.ctx) == 0
    accepted(empty, [2])
    assert close_due(empty.ctx) == 1


def test_a_round_does_not_close_over_what_is_being_screened(repo: Repository) -> None:
    accepted(repo, [1, 2])
    third = repo.contributor("bob").contribute(body_file(3))
    assert close_due(repo.ctx) == 0
    repo.work()
    assert repo.contributor().receipt(third)["state"] == "accepted"
    assert close_due(repo.ctx) == 1
    assert shown(repo)["accepted"] == 3


def test_a_round_with_nothing_accepted_cannot_be_closed(repo: Repository) -> None:
    repo.contributor().contribute(body_file())
    with pytest.raises(RoundNotClosable):
        closed(repo)
    assert shown(repo)["state"] == "open"


def test_a_round_is_closed_once(repo: Repository) -> None:
    accepted(repo, [1])
    closed(repo)
    with pytest.raises(StateConflict):
        close_by_hand(repo.ctx, MODEL, "1", repo.principal("max", "maintainer"))


def test_contributions_are_fused_in_the_order_of_their_acceptance(empty: Repository) -> None:
    empty.model(min_contributions=3)
    contributors = [empty.contributor(f"c{s}") for s in range(3)]
    ids = [c.sent(body_file(s)) for s, c in enumerate(contributors)]
    for index in (2, 0, 1):
        contributors[index].complete(ids[index])
        empty.clock.advance(seconds=1)
    empty.work()
    close_due(empty.ctx)
    empty.work()
    manifest = empty.get(f"/v1/models/{MODEL}/bases/v1")["manifest"]
    assert [item["id"] for item in manifest["contributions"]] == [ids[2], ids[0], ids[1]]


def test_a_fuse_is_reproducible_to_the_bit(tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "two"):
        with repository(tmp_path / name) as repo:
            repo.model(min_contributions=3)
            accepted(repo, [1, 2, 3])
            close_due(repo.ctx)
            repo.work()
            digests.add(hashlib.sha256(weights_of(repo, "v1")).hexdigest())
    assert len(digests) == 1


# Workers that die, pause and race.


class Killed(BaseException):
    """The process ends here."""


def ready(repo: Repository) -> None:
    accepted(repo, [1, 2])
    assert close_due(repo.ctx) == 1


def test_a_worker_killed_between_fuse_and_publication_is_followed_by_another(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(repo)

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "_publish", killed)
        # A process that is killed does not release its lease either.
        patch.setattr(leases, "release", lambda *_: None)
        with pytest.raises(Killed):
            work_once(repo.ctx, "first")
    assert shown(repo)["state"] == "evaluating"
    with repo.ctx.database.read() as session:
        candidate = session.scalars(select(CandidateRow.manifest)).one()
    assert candidate is not None
    assert repo.get(f"/v1/models/{MODEL}")["current"] == "v0"
    assert not work_once(repo.ctx, "second")
    repo.clock.advance(seconds=31)
    assert work_once(repo.ctx, "second")
    base = repo.get(f"/v1/models/{MODEL}/bases/v1")
    assert base["digest"] == Manifest.model_validate_json(candidate).digest()
    assert len(events(repo, "base.published")) == 2
    assert not work_once(repo.ctx, "third")


def test_a_worker_killed_in_the_middle_of_the_fuse_is_followed_by_another(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(repo)
    put = type(repo.ctx.store).put

    def killed(store: Any, chunks: Iterator[bytes], expect: str | None = None) -> Any:
        next(iter(chunks))
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(type(repo.ctx.store), "put", killed)
        patch.setattr(leases, "release", lambda *_: None)
        with pytest.raises(Killed):
            work_once(repo.ctx, "first")
    assert type(repo.ctx.store).put is put
    assert shown(repo)["state"] == "fusing"
    repo.clock.advance(seconds=31)
    assert work_once(repo.ctx, "second")
    assert shown(repo)["state"] == "published"


def test_a_worker_killed_while_publishing_leaves_nothing_half(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(repo)

    def killed(*_: Any) -> None:
        raise Killed

    for module, step in ((publishing, "_weights"), (ending, "_carry"), (rounds, "open_next")):
        with monkeypatch.context() as patch:
            patch.setattr(module, step, killed)
            with pytest.raises(Killed):
                work_once(repo.ctx, "first")
    with repo.ctx.database.read() as session:
        assert [row.number for row in session.scalars(select(BaseRow))] == [0]
        states = set(session.scalars(select(ContributionRow.state)))
    assert states == {"accepted"}
    assert shown(repo)["state"] == "evaluating"
    repo.work()
    assert shown(repo)["state"] == "published"
    assert len(events(repo, "base.published")) == 2


def test_a_worker_paused_past_its_lease_may_not_publish(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(repo)
    decide = publishing._decide
    overtaken: list[str] = []

    def paused(ctx: Any, round_id: int, lease: leases.Lease) -> None:
        if lease.holder == "slow":
            repo.clock.advance(seconds=60)
            assert work_once(repo.ctx, "quick")
            with pytest.raises((LeaseLost, StateConflict)) as caught:
                decide(ctx, round_id, lease)
            overtaken.append(type(caught.value).__name__)
            raise LeaseLost("as the real one would")
        decide(ctx, round_id, lease)

    monkeypatch.setattr(publishing, "_decide", paused)
    work_once(repo.ctx, "slow")
    assert len(overtaken) == 1
    assert shown(repo)["state"] == "published"
    assert len(events(repo, "base.published")) == 2
    assert [b["version"] for b in repo.get(f"/v1/models/{MODEL}/bases")["items"]] == ["v1", "v0"]


def test_a_worker_paused_in_the_fuse_is_told_when_it_goes_on(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(repo)
    report, alive = publishing._Progress.report, leases.Renewal.alive
    paused: list[int] = []
    # A process that is paused stands still in all of its threads.
    running = threading.Lock()

    def pausing(progress: publishing._Progress, done: int, total: int) -> None:
        if progress.renewal.lease.holder == "slow" and not paused:
            with running:
                paused.append(done)
                repo.clock.advance(seconds=60)
                assert work_once(repo.ctx, "quick")
        report(progress, done, total)

    def halting(renewal: leases.Renewal) -> None:
        with running if renewal.lease.holder == "slow" else nullcontext():
            alive(renewal)

    monkeypatch.setattr(publishing._Progress, "report", pausing)
    monkeypatch.setattr(leases.Renewal, "alive", halting)
    work_once(repo.ctx, "slow")
    assert paused
    done = shown(repo)
    assert done["state"] == "published"
    assert done["reason"] is None
    assert len(events(repo, "round.failed")) == 0
    assert len(events(repo, "base.published")) == 2


def test_a_worker_paused_past_its_lease_may_not_decide(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    contribution = repo.contributor().contribute(body_file())
    decide = screening._decide

    def paused(ctx: Any, which: str, lease: leases.Lease, outcome: Any, **more: Any) -> None:
        if lease.holder == "slow":
            repo.clock.advance(seconds=60)
            assert work_once(repo.ctx, "quick")
            with pytest.raises(LeaseLost):
                decide(ctx, which, lease, outcome, **more)
            raise LeaseLost("as the real one would")
        decide(ctx, which, lease, outcome, **more)

    monkeypatch.setattr(screening, "_decide", paused)
    work_once(repo.ctx, "slow")
    assert repo.contributor().receipt(contribution)["state"] == "accepted"
    assert len(events(repo, "contribution.accepted")) == 1


def test_a_failed_fuse_says_why_and_is_tried_again_later(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(repo)

    def full(*_: Any) -> Any:
        raise StorageFull("The disk is full, says the test.")

    waits = []
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "_fuse", full)
        for _ in range(4):
            assert work_once(repo.ctx, "worker")
            failed = shown(repo)
            assert (failed["state"], failed["reason"]) == (
                "failed",
                "The disk is full, says the test.",
            )
            assert not work_once(repo.ctx, "worker")
            with repo.ctx.database.read() as session:
                retry_at = session.scalars(select(RoundRow.retry_at)).one()
            assert retry_at is not None
            waits.append(retry_at - repo.clock())
            repo.clock.now = retry_at
    assert waits == sorted(waits) and waits[0] < waits[-1] <= timedelta(minutes=10)
    repo.work()
    done = shown(repo)
    assert (done["state"], done["reason"]) == ("published", None)


def test_the_disk_full_for_real_loses_nothing(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(repo)
    before = sorted(path for path in repo.folder.rglob("*") if path.is_file())

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("coldfusion_server.storage.local._sync", full)
        assert work_once(repo.ctx, "worker")
    assert shown(repo)["state"] == "failed"
    assert "full" in shown(repo)["reason"]
    assert sorted(path for path in repo.folder.rglob("*") if path.is_file()) == before
    repo.clock.advance(minutes=1)
    repo.work()
    assert shown(repo)["state"] == "published"


def test_a_fault_of_ours_does_not_end_the_worker(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    contribution = repo.contributor().contribute(body_file())
    stop = threading.Event()
    faults: list[int] = []
    screen = screening._screen

    def faulty(*arguments: Any) -> None:
        if len(faults) < 2:
            faults.append(1)
            raise ZeroDivisionError
        screen(*arguments)
        stop.set()

    monkeypatch.setattr(screening, "_screen", faulty)
    monkeypatch.setattr(screening, "RETRY_SECONDS", 0.0)
    settings = repo.settings.model_copy(update={"worker_seconds": 0.01})
    object.__setattr__(repo.ctx, "settings", settings)
    thread = threading.Thread(target=run_worker, args=(repo.ctx, stop))
    thread.start()
    thread.join(300)
    stop.set()
    assert not thread.is_alive()
    assert repo.contributor().receipt(contribution)["state"] == "accepted"


# Leases.


def test_a_lease_keeps_others_away_until_it_is_given_back_or_runs_out(repo: Repository) -> None:
    first = leases.acquire(repo.ctx, "key", "a")
    assert first is not None
    assert leases.acquire(repo.ctx, "key", "b") is None
    assert leases.acquire(repo.ctx, "other", "b") is not None
    leases.release(repo.ctx, first)
    second = leases.acquire(repo.ctx, "key", "b")
    assert second is not None and second.fencing > first.fencing
    repo.clock.advance(seconds=29)
    assert leases.acquire(repo.ctx, "key", "c") is None
    with repo.ctx.database.write() as session:
        leases.renew(repo.ctx, session, second)
    repo.clock.advance(seconds=29)
    assert leases.acquire(repo.ctx, "key", "c") is None
    repo.clock.advance(seconds=2)
    third = leases.acquire(repo.ctx, "key", "c")
    assert third is not None and third.fencing > second.fencing


def test_an_overtaken_lease_checks_renews_and_releases_nothing(repo: Repository) -> None:
    old = leases.acquire(repo.ctx, "key", "same name")
    assert old is not None
    repo.clock.advance(seconds=31)
    new = leases.acquire(repo.ctx, "key", "same name")
    assert new is not None
    for attempt in (leases.check, lambda s, held: leases.renew(repo.ctx, s, held)):
        with pytest.raises(LeaseLost), repo.ctx.database.write() as session:
            attempt(session, old)
    leases.release(repo.ctx, old)
    assert leases.acquire(repo.ctx, "key", "third") is None
    with repo.ctx.database.write() as session:
        leases.check(session, new)


def test_of_many_that_ask_at_once_one_gets_the_lease(repo: Repository) -> None:
    for attempt in range(10):
        barrier = threading.Barrier(8)
        got: list[leases.Lease] = []

        def ask(name: str, key: str, barrier: threading.Barrier, got: list[leases.Lease]) -> None:
            barrier.wait()
            lease = leases.acquire(repo.ctx, key, name)
            if lease is not None:
                got.append(lease)

        run([(ask, (str(n), f"key{attempt}", barrier, got)) for n in range(8)])
        assert len(got) == 1


def run(calls: list[tuple[Any, tuple[Any, ...]]]) -> None:
    """Call all at once in threads; what one of them raises is raised here."""
    faults: list[BaseException] = []

    def call(function: Any, arguments: tuple[Any, ...]) -> None:
        try:
            function(*arguments)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=call, args=item) for item in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


# Races.


def test_two_workers_at_once_publish_each_round_exactly_once(empty: Repository) -> None:
    empty.model(min_contributions=1)
    raw, base = tiny_tensors(), "v0"
    for attempt in range(6):
        empty.contributor().contribute(file_bytes(body_of(raw, attempt)), base=base)
        empty.work()
        assert close_due(empty.ctx) == 1
        barrier = threading.Barrier(3)

        def work(name: str, barrier: threading.Barrier) -> None:
            barrier.wait()
            while work_once(empty.ctx, name):
                pass

        run([(work, (f"w{n}", barrier)) for n in range(3)])
        empty.work()
        base = f"v{attempt + 1}"
        assert empty.get(f"/v1/models/{MODEL}")["current"] == base
        raw = read_file(weights_of(empty, base))
    assert len(events(empty, "base.published")) == 7
    assert len(events(empty, "round.published")) == 6


def race(repo: Repository, count: int, model: str, base: dict[str, Array], strict: bool) -> None:
    """Let completions and screenings run into a close; all that is accepted is fused, or waits."""
    contributors = [repo.contributor(f"r{n}") for n in range(count)]
    sure = contributors[0].contribute(body_file(1000, base), model=model)
    repo.work()
    ids = [c.sent(body_file(n, base), model=model) for n, c in enumerate(contributors)]
    barrier = threading.Barrier(count + 3)
    maintainer = repo.principal("max", "maintainer")

    def complete(index: int) -> None:
        barrier.wait()
        assert contributors[index].complete(ids[index]).status_code in (200, 409)

    def work(name: str) -> None:
        barrier.wait()
        for _ in range(4):
            work_once(repo.ctx, name)

    def close() -> None:
        barrier.wait()
        for _ in range(2):
            work_once(repo.ctx, "closer")
        close_by_hand(repo.ctx, model, "1", maintainer)

    run([(complete, (n,)) for n in range(count)] + [(work, ("a",)), (work, ("b",)), (close, ())])
    repo.clock.advance(seconds=31)
    repo.work()
    with repo.ctx.database.read() as session:
        decided = {
            data["contribution"]
            for data in session.scalars(
                select(EventRow.data).where(
                    EventRow.type == "contribution.accepted", EventRow.model == model
                )
            )
        }
        rows = session.scalars(select(ContributionRow).where(ContributionRow.id.in_([sure, *ids])))
        found = {row.id: (row.state, row.round.number) for row in rows}
    manifest = repo.get(f"/v1/models/{model}/bases/v1")["manifest"]
    fused = {item["id"] for item in manifest["contributions"]}
    assert {i for i, (state, _) in found.items() if state == "fused"} == fused
    assert sure in fused
    others = [found[i] for i in found if i not in fused]
    if strict:
        assert fused == decided
        assert {state for state, _ in others} <= {"rejected"}
    else:
        assert decided == set(found)
        # What came too late for the first round waits in the second.
        assert set(others) <= {("accepted", 2)}
    positions = [item["weight"] for item in manifest["contributions"]]
    assert positions == [1 / len(fused)] * len(fused)


@pytest.mark.parametrize("strict", [True, False])
def test_completions_racing_a_close_are_in_or_told_that_they_are_late(
    empty: Repository, strict: bool
) -> None:
    policy: dict[str, Any] = {"max_staleness": 0} if strict else {}
    for attempt in range(3):
        name, base = f"demo/race{attempt}", tiny_tensors(attempt)
        empty.model(name, base, min_contributions=100, **policy)
        race(empty, 5, name, base, strict)


def test_the_same_tensors_screened_at_once_are_accepted_once(repo: Repository) -> None:
    tensors = body_of(tiny_tensors(), 1)
    names = list(tensors)
    for n in range(4):
        order = names[n:] + names[:n]
        repo.contributor(f"c{n}").contribute(file_bytes({name: tensors[name] for name in order}))

    def work(name: str) -> None:
        while work_once(repo.ctx, name):
            pass

    run([(work, (f"w{n}",)) for n in range(3)])
    repo.work()
    with repo.ctx.database.read() as session:
        states = sorted(session.scalars(select(ContributionRow.state)))
    assert states == ["accepted", "rejected", "rejected", "rejected"]


def test_advance_swaps_only_from_the_state_that_the_caller_knows(repo: Repository) -> None:
    accepted(repo, [1])
    with repo.ctx.database.write() as session:
        row = session.scalars(select(RoundRow)).one()
        session.execute(
            update(RoundRow)
            .values(state=RoundState.CANCELLED)
            .execution_options(synchronize_session=False)
        )
        with pytest.raises(StateConflict):
            rounds.advance(session, repo.clock(), row, RoundState.CLOSED)


def test_leases_of_finished_work_are_not_held(repo: Repository) -> None:
    accepted(repo, [1])
    with repo.ctx.database.read() as session:
        assert all(row.expires_at <= repo.clock() for row in session.scalars(select(LeaseRow)))
