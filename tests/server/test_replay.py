"""Replays: history fused again without some contributions, reviewed, published or given up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from coldfusion_server.db.tables import (
    CandidateRow,
    ContributionFileRow,
    EventRow,
    ReplayRow,
    RoundRow,
)
from coldfusion_server.services import (
    closing,
    garbage,
    leases,
    replay_publishing,
    replaying,
    replays,
    verifying,
    withdrawal,
)
from coldfusion_server.services.candidates import manifest_of as candidate_manifest
from coldfusion_server.services.evaluations import post_evaluation, post_of_candidate
from coldfusion_server.services.tokens import Principal
from coldfusion_server.services.withdrawal import withdraw
from coldfusion_server.worker import work_once
from coldfusion_shared.errors import StateConflict, StorageFull
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.contributions import Withdrawal
from coldfusion_shared.schemas.evaluations import EvaluationReport
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.schemas.replays import ReplayRequest
from tests.server.backends import both_databases
from tests.server.by_hand import HandMade, Sent
from tests.server.lines import (
    Line,
    coarse_tensors,
    manifest_of,
    replay,
    shown,
    stored,
    three_rounds,
    weights_of,
)
from tests.server.repository import MODEL, Repository, repository, tiny_tensors

RECIPES: dict[str, dict[str, Any]] = {
    "mean": {},
    "ties": {"method": "ties", "parameters": {"density": 0.5}},
    "adam": {"optimizer": "adam", "server_lr": 0.01, "step_cap": 0.01},
    "momentum, auto": {"optimizer": "momentum", "server_lr": "auto", "staleness_exponent": 1.0},
}


class Killed(BaseException):
    """The process ends here."""


def candidates_of(repo: Repository) -> list[Manifest]:
    with repo.ctx.database.read() as session:
        query = select(CandidateRow).where(CandidateRow.replay_id.is_not(None))
        rows = session.scalars(query.order_by(CandidateRow.replay_id, CandidateRow.step))
        return [candidate_manifest(row) for row in rows]


def made(manifest: Manifest) -> list[FileEntry]:
    """Return the files of a base that a fuse makes."""
    weights = [file for file in manifest.files if file.path.endswith(".safetensors")]
    return [*weights, *manifest.master, *manifest.optimizer_state]


def events(repo: Repository, kind: str) -> list[dict[str, Any]]:
    with repo.ctx.database.read() as session:
        return list(session.scalars(select(EventRow.data).where(EventRow.type == kind)))


def by_hand(line: Line, folder: Path, without: set[str], rounds: int) -> list[HandMade]:
    """Fuse the line's history by hand; return what each round leads to."""
    folder.mkdir()
    hand, results = HandMade(folder, line.base(0)), []
    for number in range(1, rounds + 1):
        manifest = manifest_of(line.repo, f"v{number}")
        assert manifest.recipe is not None
        sent = [
            Sent(
                item.id,
                line.raws[item.id],
                line.base(line.owns[item.id]),
                number - 1 - line.owns[item.id],
            )
            for item in manifest.contributions
            if item.id not in without
        ]
        hand.fuse(manifest.recipe, sent)
        results.append(HandMade(folder, hand.weights, hand.master, hand.state, hand.steps))
    return results


def assert_same(repo: Repository, manifest: Manifest, hand: HandMade) -> None:
    assert weights_of(repo, manifest) == hand.weights
    assert [stored(repo, file) for file in manifest.master] == (
        [] if hand.master is None else [hand.master]
    )
    assert {file.path: stored(repo, file) for file in manifest.optimizer_state} == {
        f"{name}/model.safetensors": raw for name, raw in hand.state.items()
    }
    assert manifest.optimizer_steps == hand.steps


@pytest.mark.parametrize("coarse", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_replay_is_the_history_fused_by_hand_without_it(
    tmp_path: Path, recipe: str, coarse: bool
) -> None:
    with repository(tmp_path / "data") as repo:
        tensors = coarse_tensors() if coarse else tiny_tensors()
        repo.model(tensors=tensors, min_contributions=3, by_hand=True, **RECIPES[recipe])
        line, ids = three_rounds(repo)
        # By hand the old line comes out, too: the two ways to fuse are the same.
        for number, hand in enumerate(by_hand(line, tmp_path / "old", set(), 3), 1):
            assert_same(repo, manifest_of(repo, f"v{number}"), hand)

        gone = {ids[0][1], ids[1][0]}
        asked = replay(repo, status=201, without=sorted(gone))
        assert (asked["state"], asked["start"], asked["head"]) == ("queued", "v0", "v3")
        assert repo.work() == 3
        ready = shown(repo, asked["id"])
        assert (ready["state"], ready["total"], ready["skipped"]) == ("ready", 3, [])
        hands = by_hand(line, tmp_path / "new", gone, 3)
        for step, manifest, hand in zip(ready["steps"], candidates_of(repo), hands, strict=True):
            assert_same(repo, manifest, hand)
            assert set(manifest.without) == gone
            assert step["replaces"] == manifest.replays
            assert step["candidate"]["distance"] > 0
        assert repo.get(f"/v1/models/{MODEL}")["current"] == "v3"

        published = replay(repo, f"/{asked['id']}/publish")
        assert published["state"] == "published"
        assert [step["published"] for step in published["steps"]] == ["v4", "v5", "v6"]
        for number, hand in enumerate(hands, 4):
            assert_same(repo, manifest_of(repo, f"v{number}"), hand)
        maintainer = repo.principal("max", "maintainer")
        found = list(verifying.verify(repo.ctx, MODEL, None, maintainer))
        assert [one.faults for one in found] == [[]] * 7
        assert [one.fused for one in found] == [False] + [True] * 6


def test_what_counted_for_nothing_is_not_missed(repo: Repository) -> None:
    replaced = {"method": "weighted_mean", "contributor_weights": {"c2": 0, "c5": 0}}
    policy = {"min_contributions": 2, "by_hand": True, **replaced}
    client = repo.client(repo.token("max", "maintainer"))
    assert client.put(f"/v1/models/{MODEL}/policy", json=policy).status_code == 200
    line, ids = three_rounds(repo)
    asked = replay(repo, status=201, without=[ids[0][1], ids[1][1]])
    repo.work()
    for number, (step, manifest) in enumerate(
        zip(shown(repo, asked["id"])["steps"], candidates_of(repo), strict=True), 1
    ):
        assert weights_of(repo, manifest) == line.base(number)
        assert step["candidate"]["distance"] == 0


def test_a_base_of_which_too_little_is_left_is_skipped(repo: Repository) -> None:
    line = Line(repo)
    first = line.round({1: 0, 2: 0})
    second = line.round({3: 1})
    third = line.round({4: 2, 5: 2})
    asked = replay(repo, status=201, without=[*second, third[0]])
    assert asked["skipped"] == ["v2"] and asked["start"] == "v1" and asked["total"] == 1
    repo.work()
    (manifest,) = candidates_of(repo)
    assert manifest.replays == "v3" and manifest.parent is not None
    assert manifest.parent.version == "v1"
    (item,) = manifest.contributions
    # It was made from a base that the new line does not have.
    assert item.base is not None and item.base.version == "v2"
    refused = replay(repo, status=422, without=[*first, *second, *third])
    assert "too little is left" in refused["detail"] and "rollback" in refused["hint"]


def test_a_replay_may_start_later_but_never_behind_what_is_to_go(repo: Repository) -> None:
    _, ids = three_rounds(repo)
    refused = replay(repo, status=422, without=[ids[0][0], ids[2][0]], start="v1")
    assert f"{ids[0][0]} went into v1" in refused["detail"] and "v0" in refused["hint"]
    assert "does not come from v9" in replay(
        repo, status=404, without=[ids[2][0]], start="v9"
    )["detail"]  # fmt: skip
    early = replay(repo, status=201, without=[ids[2][0]], start="v1")
    assert (early["start"], early["total"]) == ("v1", 2)
    late = replay(repo, status=201, without=[ids[2][0]])
    assert (late["start"], late["total"]) == ("v2", 1)
    repo.work()
    one, other = shown(repo, early["id"])["steps"], shown(repo, late["id"])["steps"]
    # v2 loses nothing: it comes out as it was, and so does what is fused onto it.
    assert one[0]["candidate"]["distance"] == 0
    last, alone = (steps[-1]["candidate"]["manifest"] for steps in (one, other))
    assert made(Manifest.model_validate(last)) == made(Manifest.model_validate(alone))


def test_what_is_in_no_base_of_the_line_cannot_be_left_out(repo: Repository) -> None:
    line = Line(repo)
    (waiting,) = line.accepted({1: 0})
    for identity in (waiting, "nothing", "x\0"):
        refused = replay(repo, status=422, without=[identity])
        assert "in none of the bases" in refused["detail"]
    line.round({2: 0})
    assert replay(repo, status=422, without=[])["code"] == "invalid_request"
    with repo.ctx.database.read() as session:
        assert session.scalars(select(ReplayRow)).all() == []


def test_erased_inputs_are_named_before_anything_is_done(repo: Repository) -> None:
    _, ids = three_rounds(repo)
    with repo.ctx.database.write() as session:
        session.execute(
            update(ContributionFileRow)
            .where(ContributionFileRow.contribution_id == ids[1][1])
            .values(erased_at=repo.clock())
        )
    refused = replay(repo, status=422, without=[ids[0][0]])
    assert ids[1][1] in refused["detail"] and "erased" in refused["detail"]
    assert replay(repo, status=201, without=[ids[0][0], ids[1][1]])["total"] == 3
    assert replay(repo, status=201, without=[ids[2][0]])["start"] == "v2"


def test_what_is_erased_meanwhile_ends_the_replay(repo: Repository) -> None:
    _, ids = three_rounds(repo)
    asked = replay(repo, status=201, without=[ids[0][0]])
    assert work_once(repo.ctx, "worker")
    with repo.ctx.database.write() as session:
        session.execute(
            update(ContributionFileRow)
            .where(ContributionFileRow.contribution_id == ids[2][0])
            .values(erased_at=repo.clock())
        )
    repo.work()
    given_up = shown(repo, asked["id"])
    assert (given_up["state"], given_up["steps"]) == ("discarded", [])
    assert ids[2][0] in given_up["failure"]


def taken_back(repo: Repository, identity: str, **wanted: bool) -> None:
    withdraw(repo.ctx, identity, Withdrawal(reason="poison", **wanted), maintainer_of(repo))


def maintainer_of(repo: Repository) -> Principal:
    return repo.principal("max", "maintainer")


@pytest.mark.parametrize("erase", [False, True])
def test_what_was_taken_back_is_left_out_though_nobody_says_so(
    repo: Repository, erase: bool
) -> None:
    _, ids = three_rounds(repo)
    taken_back(repo, ids[1][1], erase=erase)
    asked = replay(repo, status=201, without=[ids[0][0]])
    assert asked["without"] == sorted([ids[0][0], ids[1][1]])
    repo.work()
    assert shown(repo, asked["id"])["state"] == "ready"
    assert all(set(manifest.without) == {*asked["without"]} for manifest in candidates_of(repo))
    replay(repo, f"/{asked['id']}/discard")
    # What is in the base that stays is none of the replay's business.
    assert replay(repo, status=201, without=[ids[2][0]])["without"] == [ids[2][0]]


@pytest.mark.parametrize("erase", [False, True])
def test_what_is_taken_back_of_a_ready_replay_is_not_published(
    repo: Repository, erase: bool
) -> None:
    _, ids = three_rounds(repo)
    asked = replay(repo, status=201, without=[ids[0][0]])
    repo.work()
    taken_back(repo, ids[2][1], erase=erase)
    refused = replay(repo, f"/{asked['id']}/publish", status=409)
    assert ids[2][1] in refused["detail"]
    assert (
        f"again, which leaves them out: coldfusion-server model replay {MODEL}" in refused["hint"]
    )
    assert repo.get(f"/v1/models/{MODEL}")["newest"] == "v3"
    again = replay(repo, status=201, without=[ids[0][0]])
    assert again["without"] == sorted([ids[0][0], ids[2][1]])
    repo.work()
    replay(repo, f"/{again['id']}/publish")
    assert repo.get(f"/v1/models/{MODEL}")["current"] == "v6"


def test_what_an_open_replay_fuses_again_is_kept(repo: Repository) -> None:
    _, ids = three_rounds(repo)
    policy = {"min_contributions": 2, "by_hand": True, "keep_contributions": 1}
    client = repo.client(repo.token("max", "maintainer"))
    assert client.put(f"/v1/models/{MODEL}/policy", json=policy).status_code == 200
    repo.clock.advance(days=400)
    asked = replay(repo, status=201, without=[ids[1][0]])
    garbage.collect(repo.ctx, "test")
    repo.work()
    assert shown(repo, asked["id"])["state"] == "ready"
    ann = repo.contributor()
    # Only what went into v1 was nothing that it needed.
    assert [ann.receipt(of_round[1])["erased_at"] is None for of_round in ids] == [
        False, True, True,
    ]  # fmt: skip
    replay(repo, f"/{asked['id']}/discard")
    garbage.collect(repo.ctx, "test")
    assert ann.receipt(ids[1][1])["erased_at"] is not None


def test_the_card_of_a_replayed_base_says_what_it_is(repo: Repository) -> None:
    _, ids = three_rounds(repo)
    asked = replay(repo, status=201, without=[ids[0][0]])
    repo.work()
    replay(repo, f"/{asked['id']}/publish")
    card = repo.client().get(f"/v1/models/{MODEL}/bases/v5/files/README.md").text
    assert "v2, fused again onto v4\nwithout some contributions" in card
    assert "contributors finetuned v4" not in card
    old = repo.client().get(f"/v1/models/{MODEL}/bases/v2/files/README.md").text
    assert "contributors finetuned v1" in old


def test_the_same_replay_is_asked_for_once(repo: Repository) -> None:
    _, ids = three_rounds(repo)
    asked = replay(repo, status=201, without=ids[0][:2])
    again = replay(repo, status=409, without=[ids[0][1], ids[0][0], ids[0][0]])
    assert asked["id"] in again["detail"]
    replay(repo, f"/{asked['id']}/discard")
    replay(repo, status=201, without=ids[0][:2])


# Workers that die, fail, and are overtaken.


@both_databases
def test_another_worker_goes_on_behind_the_last_base_that_was_kept(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ids = three_rounds(repo)
    whole = replay(repo, status=201, without=[ids[0][0]])
    repo.work()
    expected = [made(manifest) for manifest in candidates_of(repo)]
    replay(repo, f"/{whole['id']}/discard")
    asked = replay(repo, status=201, without=[ids[0][0]])
    assert work_once(repo.ctx, "first")
    (kept,) = shown(repo, asked["id"])["steps"]

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    for step in ("fuse", "_keep", "check_stored"):
        with monkeypatch.context() as patch:
            patch.setattr(replaying, step, killed)
            # A process that is killed does not release its lease either.
            patch.setattr(leases, "release", lambda *_: None)
            with pytest.raises(Killed):
                work_once(repo.ctx, "first")
        assert not work_once(repo.ctx, "second")
        repo.clock.advance(seconds=31)
    repo.work()
    ready = shown(repo, asked["id"])
    assert ready["state"] == "ready" and ready["steps"][0] == kept
    manifests = [Manifest.model_validate(s["candidate"]["manifest"]) for s in ready["steps"]]
    assert [made(manifest) for manifest in manifests] == expected


@both_databases
def test_a_worker_paused_past_its_lease_keeps_nothing(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ids = three_rounds(repo)
    asked = replay(repo, status=201, without=[ids[2][0]])
    keep = replaying._keep

    def paused(ctx: Any, identity: str, lease: leases.Lease, *rest: Any) -> None:
        if lease.holder == "slow":
            repo.clock.advance(seconds=60)
            assert work_once(repo.ctx, "quick")
        keep(ctx, identity, lease, *rest)

    monkeypatch.setattr(replaying, "_keep", paused)
    assert work_once(repo.ctx, "slow")
    assert len(shown(repo, asked["id"])["steps"]) == 1
    assert shown(repo, asked["id"])["state"] == "ready"
    assert len(events(repo, "replay.ready")) == 1


def test_a_failed_replay_says_why_and_is_tried_again_later(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ids = three_rounds(repo)
    asked = replay(repo, status=201, without=[ids[2][0]], reason="it was poison")

    def full(*_: Any) -> None:
        raise StorageFull("The disk is full, says the test.")

    with monkeypatch.context() as patch:
        patch.setattr(replaying, "describe", full)
        assert work_once(repo.ctx, "worker")
    failed = shown(repo, asked["id"])
    assert (failed["state"], failed["failure"]) == ("failed", "The disk is full, says the test.")
    assert not work_once(repo.ctx, "worker")
    repo.clock.advance(seconds=6)
    repo.work()
    ready = shown(repo, asked["id"])
    assert (ready["state"], ready["failure"], ready["reason"]) == ("ready", None, "it was poison")


@both_databases
def test_a_replay_that_is_given_up_stops_and_its_objects_go(repo: Repository) -> None:
    _, ids = three_rounds(repo)
    asked = replay(repo, status=201, without=[ids[0][0]])
    assert work_once(repo.ctx, "worker")
    (manifest,) = candidates_of(repo)
    maintainer = repo.principal("max", "maintainer")
    repo.clock.advance(days=400)
    garbage.collect(repo.ctx, "test")
    weights = next(file for file in made(manifest))
    assert repo.ctx.store.exists(weights.sha256)
    assert replay(repo, f"/{asked['id']}/discard")["state"] == "discarded"
    assert not work_once(repo.ctx, "worker")
    repo.ctx.settings.__dict__["gc_grace_hours"] = 0
    garbage.collect(repo.ctx, "test")
    assert not repo.ctx.store.exists(weights.sha256)
    (last, *_) = list(verifying.verify(repo.ctx, MODEL, "latest", maintainer))
    assert not last.faults
    assert replay(repo, f"/{asked['id']}/discard", status=409)["code"] == "state_conflict"
    assert replay(repo, f"/{asked['id']}/publish", status=409)["code"] == "state_conflict"


def test_a_replay_given_up_in_the_middle_of_a_fuse_keeps_nothing(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ids = three_rounds(repo)
    asked = replay(repo, status=201, without=[ids[2][0]])
    keep = replaying._keep

    def late(*arguments: Any) -> None:
        replay(repo, f"/{asked['id']}/discard")
        keep(*arguments)

    monkeypatch.setattr(replaying, "_keep", late)
    assert work_once(repo.ctx, "worker")
    assert shown(repo, asked["id"])["state"] == "discarded"
    assert candidates_of(repo) == []
    assert events(repo, "replay.failed") == []


# Publication.


def test_publishing_moves_the_head_and_the_open_round_with_it(repo: Repository) -> None:
    line, ids = three_rounds(repo)
    asked = replay(repo, status=201, without=[ids[2][0]], reason="it was poison")
    early = replay(repo, f"/{asked['id']}/publish", status=409)
    assert "queued, not ready" in early["detail"]
    repo.work()
    (waiting,) = line.accepted({11: 3})
    replay(repo, f"/{asked['id']}/publish")
    model = repo.get(f"/v1/models/{MODEL}")
    assert (model["current"], model["newest"]) == ("v4", "v4")
    moved = model["moved"]
    assert (moved["kind"], moved["before"], moved["after"]) == ("replay", "v3", "v4")
    assert moved["by"] == "max"
    assert ids[2][0] in moved["reason"] and "it was poison" in moved["reason"]
    (told,) = events(repo, "model.replayed")
    assert (told["from"], told["to"], told["without"]) == ("v3", "v4", [ids[2][0]])
    assert [data["version"] for data in events(repo, "base.published")] == [
        "v0", "v1", "v2", "v3", "v4",
    ]  # fmt: skip
    manifest, old = manifest_of(repo, "v4"), manifest_of(repo, "v3")
    assert manifest.replays == "v3" and manifest.without == [ids[2][0]]
    assert manifest.parent == old.parent
    assert [item.id for item in manifest.contributions] == ids[2][1:]
    assert (manifest.round, manifest.recipe) == (old.round, old.recipe)
    opened = repo.get(f"/v1/models/{MODEL}/rounds/open")
    assert (opened["base"], opened["accepted"]) == ("v4", 1)
    # What waited is no later for it, and the line goes on from the new head.
    line.round({12: 4})
    after = manifest_of(repo, "v5")
    assert after.parent is not None and after.parent.version == "v4"
    assert after.parent.digest == manifest.digest()
    (first, _) = after.contributions
    assert first.id == waiting and first.staleness == 0
    assert first.base is not None and first.base.version == "v3"
    again = replay(repo, f"/{asked['id']}/publish", status=409)
    assert "published already" in again["detail"]


def test_publishing_ends_the_round_under_way(repo: Repository) -> None:
    line, ids = three_rounds(repo)
    asked = replay(repo, status=201, without=[ids[2][0]])
    repo.work()
    (waiting,) = line.accepted({11: 3})
    closing.close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))
    replay(repo, f"/{asked['id']}/publish")
    with repo.ctx.database.read() as session:
        rounds = session.scalars(select(RoundRow).order_by(RoundRow.number)).all()
        assert [row.state for row in rounds[-2:]] == ["cancelled", "open"]
        assert rounds[-1].base_number == 4
    assert line.repo.contributor().receipt(waiting)["round"] == 5
    assert repo.work() == 0


def test_a_replay_is_not_published_over_what_came_after(repo: Repository) -> None:
    line, ids = three_rounds(repo)
    asked = replay(repo, status=201, without=[ids[2][0]])
    repo.work()
    line.round({11: 3})
    refused = replay(repo, f"/{asked['id']}/publish", status=409)
    assert "The head is v4 by now" in refused["detail"]
    assert f"--without {ids[2][0]}" in refused["hint"]
    assert repo.get(f"/v1/models/{MODEL}")["current"] == "v4"


@both_databases
def test_publishing_leaves_nothing_half(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    _, ids = three_rounds(repo)
    asked = replay(repo, status=201, without=[ids[0][0]])
    repo.work()
    maintainer = repo.principal("max", "maintainer")

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    for step in ("_add", "_move", "settle", "fault_point"):
        with monkeypatch.context() as patch:
            patch.setattr(replay_publishing, step, killed)
            with pytest.raises(Killed):
                replay_publishing.publish(repo.ctx, MODEL, asked["id"], maintainer)
        assert repo.get(f"/v1/models/{MODEL}")["newest"] == "v3"
        assert shown(repo, asked["id"])["state"] == "ready"
    replay_publishing.publish(repo.ctx, MODEL, asked["id"], maintainer)
    assert repo.get(f"/v1/models/{MODEL}")["current"] == "v6"
    assert len(events(repo, "model.replayed")) == 1


def at_once(call: Callable[[], Any]) -> list[Any]:
    """Call three times at once; return what came of it, errors among it."""
    barrier, results = threading.Barrier(3), list[Any]()

    def one() -> None:
        barrier.wait()
        try:
            results.append(call())
        except StateConflict as error:
            results.append(error)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@both_databases
def test_of_several_clicks_at_once_one_counts(repo: Repository) -> None:
    _, ids = three_rounds(repo)
    maintainer = repo.principal("max", "maintainer")
    wanted = ReplayRequest(without=[ids[0][0]])
    asked = at_once(lambda: replays.ask(repo.ctx, MODEL, wanted, maintainer))
    (found,) = [one for one in asked if not isinstance(one, StateConflict)]
    assert len(asked) == 3
    repo.work()
    done = at_once(lambda: replay_publishing.publish(repo.ctx, MODEL, found.id, maintainer))
    assert len([one for one in done if not isinstance(one, StateConflict)]) == 1
    assert len(done) == 3
    assert repo.get(f"/v1/models/{MODEL}")["newest"] == "v6"
    assert len(events(repo, "replay.queued")) == len(events(repo, "model.replayed")) == 1


class Overtaking:
    """Two transactions at once: inside the first, the second has all the time that it needs."""

    def __init__(self) -> None:
        self.inside, self.over = threading.Event(), threading.Event()

    def pausing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a step of the first that waits, when it is done, for the second to end."""

        def paused(*given: Any, **named: Any) -> Any:
            done = call(*given, **named)
            self.inside.set()
            # Who waits for this transaction, as it should be, is not through by then.
            self.over.wait(2)
            return done

        return paused

    def run(self, first: Callable[[], Any], second: Callable[[], Any]) -> tuple[Any, Any]:
        """Return what came of both, errors among it."""

        def later() -> Any:
            self.inside.wait(300)
            try:
                return came_of(second)
            finally:
                self.over.set()

        with ThreadPoolExecutor(2) as pool:
            results = pool.submit(came_of, first), pool.submit(later)
        return results[0].result(), results[1].result()


def came_of(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except StateConflict as error:
        return error


def ready_replay(repo: Repository) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Make a replay ready; return what publishes it, and what takes back a part of v3 and of it."""
    _, ids = three_rounds(repo)
    asked = replay(repo, status=201, without=[ids[0][0]])
    repo.work()
    maintainer = repo.principal("max", "maintainer")
    return (
        lambda: replay_publishing.publish(repo.ctx, MODEL, asked["id"], maintainer),
        lambda: withdraw(repo.ctx, ids[2][1], Withdrawal(reason="mine"), maintainer),
    )


@both_databases
def test_a_publishing_waits_for_a_withdrawal_that_is_under_way(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, take_back = ready_replay(repo)
    both = Overtaking()
    monkeypatch.setattr(withdrawal, "_take_back", both.pausing(withdrawal._take_back))
    taken, published = both.run(take_back, publish)
    assert taken.contained_in == ["v3"]
    assert isinstance(published, StateConflict) and "withdrawn" in published.message
    assert repo.get(f"/v1/models/{MODEL}")["newest"] == "v3"


@both_databases
def test_a_withdrawal_waits_for_a_publishing_that_is_under_way(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, take_back = ready_replay(repo)
    both = Overtaking()
    checked = both.pausing(replay_publishing._check_inputs)
    monkeypatch.setattr(replay_publishing, "_check_inputs", checked)
    published, taken = both.run(publish, take_back)
    assert published.state == "published"
    assert taken.contained_in == ["v3", "v6"]
    assert "--without" in taken.sentence, "the head, as it is now, has it"


def test_a_replayed_line_can_be_replayed_again(repo: Repository) -> None:
    _, ids = three_rounds(repo)
    first = replay(repo, status=201, without=[ids[0][0]])
    repo.work()
    replay(repo, f"/{first['id']}/publish")
    assert "in none" in replay(repo, status=422, without=[ids[0][0]])["detail"]
    second = replay(repo, status=201, without=[ids[1][0]])
    assert (second["start"], second["head"]) == ("v4", "v6")
    repo.work()
    replay(repo, f"/{second['id']}/publish")
    once = replay_at_once(repo, [ids[0][0], ids[1][0]])
    last = manifest_of(repo, "v8")
    assert made(last) == made(once)
    assert set(last.without) == {ids[0][0], ids[1][0]}


def replay_at_once(repo: Repository, without: list[str]) -> Manifest:
    """Go back to v3 and replay without all of them; return the last base."""
    client = repo.client(repo.token("max", "maintainer"))
    path = f"/v1/models/{MODEL}/rollback"
    assert client.post(path, json={"version": "v3", "reason": "test"}).status_code == 200
    asked = replay(repo, status=201, without=without)
    repo.work()
    (*_, last) = shown(repo, asked["id"])["steps"]
    return Manifest.model_validate(last["candidate"]["manifest"])


def test_scores_stand_side_by_side_where_one_suite_measured_both(repo: Repository) -> None:
    _, ids = three_rounds(repo)
    asked = replay(repo, status=201, without=[ids[2][0]])
    repo.work()
    (step,) = shown(repo, asked["id"])["steps"]
    assert (step["old_score"], step["new_score"], step["suite"]) == (None, None, None)
    judge = repo.principal("eve", "evaluator")
    for scores in ({"a": 50.0, "b": 70.0}, {"a": 52.0, "b": 70.0}):
        report = EvaluationReport(suite="s", protocol="frozen", scores=scores)
        post_evaluation(repo.ctx, MODEL, "v3", report, judge)
    other = EvaluationReport(suite="t", protocol="frozen", scores={"a": 1.0})
    post_evaluation(repo.ctx, MODEL, "v3", other, judge)
    mine = EvaluationReport(suite="s", protocol="frozen", scores={"a": 55.0, "b": 71.0})
    post_of_candidate(repo.ctx, MODEL, step["candidate"]["id"], mine, judge)
    (step,) = shown(repo, asked["id"])["steps"]
    assert (step["old_score"], step["new_score"], step["suite"]) == (61.0, 63.0, "s")
    replay(repo, f"/{asked['id']}/publish")
    posted = repo.get(f"/v1/models/{MODEL}/bases/v4/evaluations")
    assert [found["scores"] for found in posted] == [{"a": 55.0, "b": 71.0}]


@both_databases
def test_replays_are_listed_newest_first(repo: Repository) -> None:
    _, ids = three_rounds(repo)
    made_ids = []
    for identity in ids[2][:2]:
        made_ids.append(replay(repo, status=201, without=[identity])["id"])
        repo.clock.advance(seconds=1)
    token = repo.token("max", "maintainer")
    listed = repo.get(f"/v1/models/{MODEL}/replays", token)
    assert [one["id"] for one in listed] == made_ids[::-1]
    nowhere = repo.client(token).get(f"/v1/models/{MODEL}/replays/{'0' * 16}")
    assert (nowhere.status_code, nowhere.json()["code"]) == (404, "replay_not_found")
