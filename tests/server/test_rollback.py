"""Going back: the head moves, nothing is deleted, and what waits is settled at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select

from coldfusion_server.db.tables import EventRow, RoundRow
from coldfusion_server.services import publishing, rounds
from coldfusion_server.services.closing import close_by_hand, close_due
from coldfusion_server.services.rollback import roll_back
from coldfusion_server.worker import work_once
from coldfusion_shared.errors import BaseNotFound
from coldfusion_shared.rounds import ENDS, RoundState
from coldfusion_shared.schemas.models import RollbackRequest
from tests.server.backends import both_databases
from tests.server.lines import Line, replay
from tests.server.repository import MODEL, Repository, body_file
from tests.server.test_round_way import accepted, events, shown

REASON = "v2 forgot the second task"


def published(repo: Repository, count: int, first: int = 1) -> None:
    """Publish `count` bases, each from one contribution that was made from the head."""
    for seed in range(first, first + count):
        accepted(repo, [seed], base=model(repo)["current"])
        close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))
        repo.work()


def model(repo: Repository) -> Any:
    return repo.get(f"/v1/models/{MODEL}")


def rollback(repo: Repository, version: str, /, role: str = "maintainer", **body: Any) -> Any:
    client = repo.client(repo.token("max", role))
    wanted = {"version": version, "reason": REASON, **body}
    return client.post(f"/v1/models/{MODEL}/rollback", json=wanted)


def sent(repo: Repository, name: str, seed: int, base: str) -> str:
    return repo.contributor(name).contribute(body_file(seed), base=base)


def receipt(repo: Repository, contribution: str) -> Any:
    return repo.contributor().receipt(contribution)


def test_the_head_moves_and_nothing_is_deleted(repo: Repository) -> None:
    published(repo, 2)
    answer = rollback(repo, "v0")
    assert answer.status_code == 200, answer.text
    done = answer.json()
    assert (done["moved"], done["before"], done["after"]) == (True, "v2", "v0")
    now = model(repo)
    assert (now["current"], now["newest"], now["open_round"]) == ("v0", "v2", 3)
    assert now["moved"]["reason"] == REASON
    assert now["moved"]["by"] == "max"
    # What latest means is the head, and all bases are there.
    assert repo.get(f"/v1/models/{MODEL}/bases/latest")["version"] == "v0"
    assert len(repo.get(f"/v1/models/{MODEL}/bases")["items"]) == 3
    assert shown(repo, "open")["base"] == "v0"
    (event,) = events(repo, "model.rolled_back")
    assert event == {"from": "v2", "to": "v0", "reason": REASON, "by": "max"}
    heads = repo.get(f"/v1/models/{MODEL}/heads")["items"]
    assert [(m["kind"], m["before"], m["after"]) for m in heads] == [
        ("rollback", "v2", "v0"), ("published", "v1", "v2"), ("published", "v0", "v1")
    ]  # fmt: skip


def test_the_next_base_hangs_on_the_one_gone_back_to(repo: Repository) -> None:
    published(repo, 2)
    rollback(repo, "v1")
    published(repo, 1, first=5)
    base = repo.get(f"/v1/models/{MODEL}/bases/latest")
    assert (base["version"], base["manifest"]["parent"]["version"]) == ("v3", "v1")
    # And forward again.
    assert rollback(repo, "v2").json()["moved"]
    assert model(repo)["current"] == "v2"


def test_a_double_click_changes_nothing(repo: Repository) -> None:
    published(repo, 1)
    rollback(repo, "v0")
    before = model(repo)
    answer = rollback(repo, "v0")
    assert (answer.status_code, answer.json()["moved"]) == (200, False)
    assert "already" in answer.json()["sentence"]
    assert model(repo) == before
    assert len(events(repo, "model.rolled_back")) == 1


@pytest.mark.parametrize("version", ["v9", "v1"])
def test_a_base_that_the_model_has_not_is_named(repo: Repository, version: str) -> None:
    # Another model has a v1.
    repo.model("demo/other", min_contributions=1)
    accepted(repo, [1], model="demo/other")
    close_due(repo.ctx)
    repo.work()
    answer = rollback(repo, version)
    assert (answer.status_code, answer.json()["code"]) == (404, "base_not_found")
    assert version in answer.json()["detail"]
    assert not events(repo, "model.rolled_back")


@pytest.mark.parametrize(
    "body", [{"reason": ""}, {"reason": "  "}, {"reason": None}, {"version": "three"}]
)
def test_a_request_that_says_too_little_is_refused(repo: Repository, body: Any) -> None:
    assert rollback(repo, "v0", **body).status_code == 422


def test_what_waits_is_kept_as_late(repo: Repository) -> None:
    published(repo, 2)
    of_two = sent(repo, "ann", 11, "v2")
    of_zero = sent(repo, "bob", 12, "v0")
    declared = repo.contributor("cyd").sent(body_file(13), base="v2")
    repo.work()
    done = rollback(repo, "v0").json()
    assert sorted(done["late"]) == sorted([of_two, of_zero, declared])
    assert not done["refused"]
    told = {
        event["contribution"]: event["reason"] for event in events(repo, "contribution.rebased")
    }
    assert REASON in told[of_two] and "2 bases away from the head" in told[of_two]
    assert "goes into round 3." in told[of_zero]
    repo.contributor("cyd").complete(declared)
    repo.work()
    assert close_due(repo.ctx) == 1
    repo.work()
    found = {one: receipt(repo, one) for one in (of_two, of_zero, declared)}
    assert {one["state"] for one in found.values()} == {"fused"}
    assert [one["staleness"] for one in found.values()] == [2, 0, 2]
    assert found[of_two]["factor"] == pytest.approx(3**-0.5)
    manifest = repo.get(f"/v1/models/{MODEL}/bases/v3")["manifest"]
    assert manifest["parent"]["version"] == "v0"


def test_what_waits_is_refused_where_the_policy_says_so(empty: Repository) -> None:
    repo = empty
    repo.model(min_contributions=2, after_rollback="refuse")
    published(repo, 2)
    of_two = sent(repo, "ann", 11, "v2")
    of_zero = sent(repo, "bob", 12, "v0")
    declared = repo.contributor("cyd").sent(body_file(13), base="v2")
    repo.work()
    done = rollback(repo, "v0").json()
    assert (sorted(done["refused"]), done["late"]) == (sorted([of_two, declared]), [of_zero])
    refused = receipt(repo, of_two)
    assert refused["state"] == "rejected"
    assert REASON in refused["reason"] and "--onto latest" in refused["hint"]
    # Nor is one taken later that was made from what was left.
    answer = repo.contributor("dan").declare(body_file(14), base="v2")
    assert (answer.status_code, answer.json()["code"]) == (409, "base_outdated")
    assert repo.contributor("cyd").complete(declared).json()["state"] == "rejected"


def test_what_was_made_from_a_replays_base_is_refused_where_that_was_left(
    empty: Repository,
) -> None:
    repo = empty
    repo.model(min_contributions=2, after_rollback="refuse")
    line = Line(repo)
    line.round({1: 0, 2: 0})
    ids = line.round({3: 1, 4: 1, 5: 1})
    asked = replay(repo, status=201, without=ids[:1])
    repo.work()
    replay(repo, f"/{asked['id']}/publish")
    (of_three, of_two, of_one) = line.accepted({11: 3, 12: 2, 13: 1})
    done = rollback(repo, "v2").json()
    assert (done["refused"], done["late"]) == ([of_three], [])
    assert "v3, which the maintainers have gone back from" in receipt(repo, of_three)["reason"]
    assert {receipt(repo, one)["state"] for one in (of_two, of_one)} == {"accepted"}
    published(repo, 1)
    answer = repo.contributor("dan").declare(body_file(14), base="v3")
    assert (answer.status_code, answer.json()["code"]) == (409, "base_outdated")
    # Forward again: what the replay stands in for is not left.
    assert rollback(repo, "v3").status_code == 200
    assert repo.contributor("eve").declare(body_file(15), base="v2").status_code == 201


def test_what_is_too_old_on_the_new_head_is_refused(empty: Repository) -> None:
    repo = empty
    repo.model(min_contributions=2, max_staleness=1)
    published(repo, 2)
    of_two, of_one = sent(repo, "ann", 11, "v2"), sent(repo, "bob", 12, "v1")
    repo.work()
    done = rollback(repo, "v0").json()
    assert done["refused"] == [of_two]
    assert receipt(repo, of_one)["state"] == "accepted"


@pytest.mark.parametrize("state", ["closed", "fusing", "evaluating", "failed"])
def test_a_round_under_way_is_cancelled_and_what_it_had_goes_on(
    repo: Repository, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(repo, 1)
    ids = accepted(repo, [11, 12], base="v1")
    close_due(repo.ctx)
    bring_to(repo, 2, state, monkeypatch)
    done = rollback(repo, "v0").json()
    assert done["cancelled"] == 2
    cancelled, opened = shown(repo, 2), shown(repo, "open")
    assert (cancelled["state"], cancelled["candidates"]) == ("cancelled", [])
    assert REASON in cancelled["reason"]
    assert (opened["number"], opened["base"], opened["accepted"]) == (3, "v0", 2)
    close_due(repo.ctx)
    repo.clock.advance(hours=1)
    repo.work()
    assert model(repo)["current"] == "v2"
    assert {receipt(repo, one)["result"] for one in ids} == {"v2"}
    assert {receipt(repo, one)["staleness"] for one in ids} == {1}


def bring_to(repo: Repository, number: int, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a worker come so far with the closed round of that number, and no further."""
    if state == "closed":
        return
    broken = "_decide" if state == "evaluating" else "fuse"

    class Killed(BaseException):
        pass

    def stop(*_: object) -> Any:
        raise RuntimeError("no luck") if state == "failed" else Killed()

    with monkeypatch.context() as patch:
        patch.setattr(publishing, broken, stop)
        try:
            work_once(repo.ctx, "worker")
        except Killed:
            repo.clock.advance(minutes=10)
    assert shown(repo, number)["state"] == state


@both_databases
@pytest.mark.parametrize("point", ["_fuse", "_decide"])
def test_a_worker_that_was_overtaken_publishes_nothing(
    repo: Repository, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(repo, 1)
    accepted(repo, [11, 12], base="v1")
    close_due(repo.ctx)
    real: Callable[..., Any] = getattr(publishing, point)

    def overtaken(*args: Any) -> Any:
        monkeypatch.undo()
        assert rollback(repo, "v0").status_code == 200
        return real(*args)

    monkeypatch.setattr(publishing, point, overtaken)
    work_once(repo.ctx, "worker")
    assert (model(repo)["current"], model(repo)["newest"]) == ("v0", "v1")
    assert shown(repo, 2)["state"] == "cancelled"
    assert shown(repo, 3)["accepted"] == 2


@both_databases
def test_rollbacks_race_publishing_and_declarations(repo: Repository) -> None:
    published(repo, 1)
    ids = accepted(repo, [11, 12], base="v1")
    close_due(repo.ctx)
    who = repo.principal("max", "maintainer")
    back = RollbackRequest(version="v0", reason=REASON)
    person = repo.contributor("late")

    def work() -> None:
        repo.work()

    def declare() -> None:
        assert person.declare(body_file(21), base="v0").status_code == 201

    with ThreadPoolExecutor(3) as pool:
        jobs: list[Future[Any]] = [pool.submit(work), pool.submit(declare)]
        jobs.append(pool.submit(roll_back, repo.ctx, MODEL, back, who))
        for job in jobs:
            job.result()
    repo.work()
    # Whoever came first, the head is v0, and what was declared is in the open round.
    assert model(repo)["current"] == "v0"
    with repo.ctx.database.read() as session:
        states = list(session.scalars(select(RoundRow.state).order_by(RoundRow.id)))
    assert states[1] in (RoundState.PUBLISHED, RoundState.CANCELLED)
    assert [state for state in states if state not in ENDS] == [RoundState.OPEN]
    expected = "fused" if states[1] == RoundState.PUBLISHED else "accepted"
    assert {receipt(repo, one)["state"] for one in ids} == {expected}
    assert shown(repo, "open")["waiting"] == 1
    assert shown(repo, "open")["base"] == "v0"


@both_databases
def test_a_rollback_that_fails_leaves_all_as_it_was(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(repo, 1)
    accepted(repo, [11, 12], base="v1")
    close_due(repo.ctx)
    before = (model(repo), shown(repo, 2))

    def broken(*_: object) -> None:
        raise BaseNotFound("gone")

    monkeypatch.setattr(rounds, "open_next", broken)
    assert rollback(repo, "v0").status_code == 404
    assert (model(repo), shown(repo, 2)) == before
    with repo.ctx.database.read() as session:
        query = select(EventRow.id).where(EventRow.type == "model.rolled_back")
        assert session.scalars(query).all() == []
