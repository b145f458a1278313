"""Taking back: what is not fused goes, what is fused stays in its bases, and both are said."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select

from coldfusion_server.db.tables import CandidateRow
from coldfusion_server.services import fusing, garbage, publishing, screening
from coldfusion_server.services.candidates import manifest_of
from coldfusion_server.services.closing import close_due
from coldfusion_server.services.contributions import expire_uploads
from coldfusion_server.services.withdrawal import withdraw as take_back
from coldfusion_server.worker import work_once
from coldfusion_shared.errors import StateConflict
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.contributions import Withdrawal
from tests.server.backends import both_databases
from tests.server.lines import replay, three_rounds
from tests.server.repository import MODEL, Repository, body_file
from tests.server.test_garbage import broken_file, later
from tests.server.test_rollback import bring_to
from tests.server.test_round_way import accepted, events, shown


def withdraw(
    repo: Repository, contribution: str, name: str = "c1", role: str = "contributor", **body: Any
) -> Any:
    client = repo.client(repo.token(name, role))
    return client.post(f"/v1/contributions/{contribution}/withdraw", json=body or None)


def receipt(repo: Repository, contribution: str) -> Any:
    return repo.contributor().receipt(contribution)


def collected(repo: Repository) -> None:
    """Let garbage be collected when all that is stored is old."""
    later(repo)
    garbage.collect(repo.ctx, "test")


def digest(repo: Repository, contribution: str) -> str:
    return str(receipt(repo, contribution)["files"][0]["sha256"])


def test_what_is_not_fused_simply_goes(repo: Repository) -> None:
    first, second = accepted(repo, [1, 2])
    answer = withdraw(repo, first)
    assert answer.status_code == 200, answer.text
    done = answer.json()
    assert (done["changed"], done["contained_in"]) == (True, [])
    assert done["contribution"]["state"] == "withdrawn"
    assert "no base contains it" in done["sentence"]
    assert shown(repo)["accepted"] == 1
    assert close_due(repo.ctx) == 0
    (event,) = events(repo, "contribution.withdrawn")
    assert (event["contribution"], event["reason"]) == (first, "Taken back by its contributor.")
    # The others go on, with one more.
    accepted(repo, [3])
    close_due(repo.ctx)
    repo.work()
    manifest = repo.get(f"/v1/models/{MODEL}/bases/v1")["manifest"]
    ids = [item["id"] for item in manifest["contributions"]]
    assert second in ids and first not in ids and len(ids) == 2


@both_databases
def test_a_double_click_changes_nothing(repo: Repository) -> None:
    (first,) = accepted(repo, [1])
    withdraw(repo, first, reason="a mistake")
    again = withdraw(repo, first, reason="another one")
    assert (again.status_code, again.json()["changed"]) == (200, False)
    assert again.json()["contribution"]["reason"] == "Taken back: a mistake"
    assert len(events(repo, "contribution.withdrawn")) == 1


def test_it_may_be_sent_again(repo: Repository) -> None:
    ann = repo.contributor("c1")
    first = ann.contribute(body_file(1), key="the same key")
    repo.work()
    withdraw(repo, first)
    second = ann.contribute(body_file(1), key="the same key")
    repo.work()
    assert second != first
    assert receipt(repo, second)["state"] == "accepted"


def test_an_upload_on_its_way_is_given_up(repo: Repository) -> None:
    ann = repo.contributor("c1")
    contribution = ann.sent(body_file(1))
    assert repo.ctx.store.pending_uploads()
    assert withdraw(repo, contribution).status_code == 200
    assert not repo.ctx.store.pending_uploads()
    assert ann.complete(contribution).json()["state"] == "withdrawn"


@both_databases
def test_what_is_withdrawn_while_it_is_screened_is_not_accepted(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    contribution = repo.contributor("c1").contribute(body_file(1))
    real = screening._screened

    def screened(*args: Any) -> Any:
        found = real(*args)
        assert withdraw(repo, contribution, erase=True).status_code == 200
        return found

    monkeypatch.setattr(screening, "_screened", screened)
    repo.work()
    assert receipt(repo, contribution)["state"] == "withdrawn"
    assert not repo.ctx.store.exists(digest(repo, contribution))
    assert not repo.ctx.store.pending_uploads()


def test_another_contributors_is_refused(repo: Repository) -> None:
    (first,) = accepted(repo, [1])
    answer = withdraw(repo, first, name="eve")
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert receipt(repo, first)["state"] == "accepted"


def test_a_maintainer_removes_with_a_reason(repo: Repository) -> None:
    (first,) = accepted(repo, [1])
    for body in ({}, {"reason": "  "}):
        answer = withdraw(repo, first, name="max", role="maintainer", **body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    answer = withdraw(repo, first, name="max", role="maintainer", reason="its data are not free")
    assert answer.json()["contribution"]["reason"] == "Removed by max: its data are not free"


@pytest.mark.parametrize("state", ["rejected", "expired"])
def test_what_goes_into_no_base_cannot_be_taken_back(repo: Repository, state: str) -> None:
    ann = repo.contributor("c1")
    if state == "expired":
        contribution = ann.sent(body_file(1))
        repo.clock.advance(days=2)
        expire_uploads(repo.ctx)
    else:
        contribution = ann.contribute(broken_file())
        repo.work()
    answer = withdraw(repo, contribution)
    assert (answer.status_code, answer.json()["code"]) == (409, "state_conflict")
    assert state in answer.json()["detail"]


@pytest.mark.parametrize("state", ["closed", "fusing", "evaluating", "failed"])
def test_a_round_under_way_is_fused_without_it(
    repo: Repository, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = accepted(repo, [1, 2, 3])
    close_due(repo.ctx)
    bring_to(repo, 1, state, monkeypatch)
    assert withdraw(repo, ids[1], name="c2", erase=True).status_code == 200
    waiting = shown(repo)
    assert (waiting["state"], waiting["candidates"]) == ("closed", [])
    repo.work()
    done = shown(repo)
    assert (done["state"], done["result"], done["reason"]) == ("published", "v1", None)
    manifest = repo.get(f"/v1/models/{MODEL}/bases/v1")["manifest"]
    assert [item["id"] for item in manifest["contributions"]] == [ids[0], ids[2]]
    assert [item["weight"] for item in manifest["contributions"]] == [0.5, 0.5]
    assert receipt(repo, ids[1])["state"] == "withdrawn"


def test_what_the_round_did_not_take_changes_nothing_of_it(empty: Repository) -> None:
    repo = empty
    repo.model(min_contributions=2, max_contributions=2)
    accepted(repo, [1, 2])
    close_due(repo.ctx)
    waits = accepted(repo, [3])[0]
    work_once(repo.ctx, "worker")
    before = shown(repo)
    assert withdraw(repo, waits, name="c3").json()["changed"]
    assert {**shown(repo), "accepted": None} == {**before, "accepted": None}


def test_a_round_with_too_little_left_is_cancelled(repo: Repository) -> None:
    ids = accepted(repo, [1, 2])
    close_due(repo.ctx)
    for place, one in enumerate(ids, 1):
        assert withdraw(repo, one, name=f"c{place}").status_code == 200
    repo.work()
    assert shown(repo)["state"] == "cancelled"
    assert shown(repo, "open")["number"] == 2


def test_a_fused_one_stays_in_its_bases_and_that_is_said(repo: Repository) -> None:
    ids = accepted(repo, [1, 2])
    close_due(repo.ctx)
    repo.work()
    for seed in (3, 4):
        repo.contributor(f"c{seed}").contribute(body_file(seed), base="v1")
    repo.work()
    close_due(repo.ctx)
    repo.work()
    before = repo.get(f"/v1/models/{MODEL}/bases/v1")
    done = withdraw(repo, ids[0]).json()
    assert done["contained_in"] == ["v1", "v2"]
    for part in ("never change", "whoever has pulled one", f"model replay {MODEL} --without"):
        assert part in done["sentence"]
    assert (done["contribution"]["state"], done["contribution"]["result"]) == ("withdrawn", "v1")
    assert repo.get(f"/v1/models/{MODEL}/bases/v1") == before
    # Kept as others are: the base can still be fused again from its inputs.
    collected(repo)
    assert repo.ctx.store.exists(digest(repo, ids[0]))
    assert receipt(repo, ids[0])["erased_at"] is None


def test_what_is_erased_is_gone_and_its_digest_stays(repo: Repository) -> None:
    ids = accepted(repo, [1, 2])
    close_due(repo.ctx)
    repo.work()
    gone = digest(repo, ids[0])
    done = withdraw(repo, ids[0], erase=True).json()
    assert done["contribution"]["erased_at"] is not None
    assert not repo.ctx.store.exists(gone)
    assert repo.ctx.store.exists(digest(repo, ids[1]))
    manifest = repo.get(f"/v1/models/{MODEL}/bases/v1")["manifest"]
    assert manifest["contributions"][0]["files"][0]["sha256"] == gone
    assert [event["contribution"] for event in events(repo, "contribution.erased")] == [ids[0]]
    assert not withdraw(repo, ids[0], erase=True).json()["changed"]


def rejected(repo: Repository) -> tuple[str, Manifest]:
    """Have a round of one contribution rejected by its gate; return both that it leaves."""
    repo.model(
        "demo/gated",
        min_contributions=1,
        gate={"kind": "norm", "max_relative_norm": 1e-9},
    )
    (only,) = accepted(repo, [1], model="demo/gated")
    close_due(repo.ctx)
    repo.work()
    with repo.ctx.database.read() as session:
        (row,) = session.scalars(select(CandidateRow))
        assert row.given_up
        return only, manifest_of(row)


def test_what_is_erased_is_gone_from_given_up_candidates(repo: Repository) -> None:
    only, manifest = rejected(repo)
    weights = next(file for file in manifest.files if file.path == "model.safetensors")
    config = next(file for file in manifest.files if file.path == "config.json")
    assert repo.ctx.store.exists(weights.sha256)
    withdraw(repo, only)
    assert repo.ctx.store.exists(weights.sha256)
    withdraw(repo, only, erase=True)
    assert not repo.ctx.store.exists(weights.sha256)
    # The base has it, too.
    assert repo.ctx.store.exists(config.sha256)


def test_what_is_erased_is_gone_from_replays_that_were_given_up(repo: Repository) -> None:
    _, ids = three_rounds(repo)
    asked = replay(repo, status=201, without=[ids[2][0]])
    repo.work()
    with repo.ctx.database.read() as session:
        (row,) = session.scalars(select(CandidateRow).where(CandidateRow.replay_id.is_not(None)))
        weights = next(f for f in manifest_of(row).files if f.path == "model.safetensors")
    # It is for review yet, and shows what it has.
    withdraw(repo, ids[2][1], name="c8", erase=True)
    assert repo.ctx.store.exists(weights.sha256)
    replay(repo, f"/{asked['id']}/discard")
    # It is named there, as what was left out.
    withdraw(repo, ids[2][0], name="c7", erase=True)
    assert repo.ctx.store.exists(weights.sha256)
    withdraw(repo, ids[2][1], name="c8", erase=True)
    assert not repo.ctx.store.exists(weights.sha256)


def test_where_it_is_contained_after_replays_is_told(repo: Repository) -> None:
    _, ids = three_rounds(repo)
    # v4 and v5 stand in for v1 and v2, and v6 for v3, all without one of the first round.
    replay(repo, f"/{replay(repo, status=201, without=[ids[0][0]])['id']}/discard")
    asked = replay(repo, status=201, without=[ids[0][0]])
    repo.work()
    replay(repo, f"/{asked['id']}/publish")
    gone = withdraw(repo, ids[0][0]).json()
    assert gone["contained_in"] == ["v1", "v2", "v3"]
    assert gone["sentence"].count("The head, v6, does not contain it.") == 1
    assert "model replay" not in gone["sentence"]
    stays = withdraw(repo, ids[1][0], name="c4").json()
    assert stays["contained_in"] == ["v2", "v3", "v5", "v6"]
    assert f"model replay {MODEL} --without {ids[1][0]}" in stays["sentence"]


def test_what_was_withdrawn_may_be_erased_later(repo: Repository) -> None:
    ids = accepted(repo, [1, 2])
    close_due(repo.ctx)
    repo.work()
    withdraw(repo, ids[0])
    assert repo.ctx.store.exists(digest(repo, ids[0]))
    later = withdraw(repo, ids[0], erase=True).json()
    assert (later["changed"], later["contribution"]["erased_at"] is None) == (False, False)
    assert not repo.ctx.store.exists(digest(repo, ids[0]))


def test_bytes_that_another_one_needs_stay(repo: Repository) -> None:
    repo.model("demo/other")
    (first,) = accepted(repo, [1])
    (other,) = accepted(repo, [1], model="demo/other")
    assert digest(repo, first) == digest(repo, other)
    withdraw(repo, first, erase=True)
    assert repo.ctx.store.exists(digest(repo, other))
    withdraw(repo, other, erase=True)
    assert not repo.ctx.store.exists(digest(repo, other))


def test_a_store_that_is_away_holds_no_withdrawal_up(
    repo: Repository, monkeypatch: pytest.MonkeyPatch, rejected_stay: None
) -> None:
    (first,) = accepted(repo, [1])
    assert withdraw(repo, first, erase=True).status_code == 200
    assert repo.ctx.store.exists(digest(repo, first))
    monkeypatch.undo()
    collected(repo)
    assert not repo.ctx.store.exists(digest(repo, first))


@both_databases
def test_withdrawals_race_publishing(repo: Repository) -> None:
    ids = accepted(repo, [1, 2, 3, 4])
    close_due(repo.ctx)
    people = [repo.principal(f"c{seed}") for seed in (1, 2, 3, 4)]

    def take(place: int) -> None:
        take_back(repo.ctx, ids[place], Withdrawal(erase=True), people[place])

    def work() -> None:
        repo.work()

    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(work), pool.submit(take, 0), pool.submit(take, 3)]
        for job in jobs:
            job.result()
    repo.work()
    repo.clock.advance(hours=1)
    repo.work()
    assert shown(repo)["state"] == "published"
    manifest = repo.get(f"/v1/models/{MODEL}/bases/v1")["manifest"]
    fused = [item["id"] for item in manifest["contributions"]]
    for one in ids:
        shown_one = receipt(repo, one)
        assert (shown_one["result"] == "v1") == (one in fused)
        assert shown_one["state"] == ("withdrawn" if one in (ids[0], ids[3]) else "fused")
    assert {ids[1], ids[2]} <= set(fused)


@both_databases
def test_a_fuse_ends_early_when_its_round_was_taken_out_of_its_hands(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = accepted(repo, [1, 2, 3])
    close_due(repo.ctx)

    def fuse(ctx: Any, given: Any, work: Any, *rest: Any) -> Any:
        monkeypatch.undo()
        withdraw(repo, ids[0])
        repo.clock.advance(seconds=5)
        with pytest.raises(StateConflict):
            work.report(1, 2)
        return fusing.fuse(ctx, given, work, *rest)

    monkeypatch.setattr(publishing, "fuse", fuse)
    repo.work()
    manifest = repo.get(f"/v1/models/{MODEL}/bases/v1")["manifest"]
    assert [item["id"] for item in manifest["contributions"]] == ids[1:]


@both_databases
def test_a_killed_withdrawal_is_whole_or_nothing(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = accepted(repo, [1, 2])
    close_due(repo.ctx)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(garbage, "remove_rejected", killed)
        with pytest.raises(KeyboardInterrupt):
            take_back(repo.ctx, ids[0], Withdrawal(erase=True), repo.principal("c1"))
    gone = receipt(repo, ids[0])
    assert gone["state"] == "withdrawn" and gone["erased_at"] is not None
    collected(repo)
    assert not repo.ctx.store.exists(digest(repo, ids[0]))
