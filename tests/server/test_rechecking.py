"""A round is compared with itself as it closes: whoever came first is no better off for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from coldfusion_server.db.tables import AuditRow, ContributionRow
from coldfusion_server.services import closing, decisions
from coldfusion_server.services.closing import close_due
from coldfusion_server.services.verifying import verify
from coldfusion_server.services.withdrawal import withdraw
from coldfusion_shared.schemas.contributions import Decision, Withdrawal
from tests.server.backends import only_sqlite
from tests.server.repository import (
    ANY_UPDATE,
    MODEL,
    Repository,
    body_of,
    fix_sketches,
    tiny_tensors,
)
from tests.server.test_quarantine import decide, receipt, together
from tests.server.test_round_way import accepted, events, shown
from tests.shared.checkpoints import Array, file_bytes

DIRECTION = -0.6
SCREENING = {**ANY_UPDATE, "direction": {"cosine": DIRECTION}}
WHY = Decision(reason="a new language")


def against(seeds: Iterable[int], number: int) -> bytes:
    """Return weights that take back what the updates of `seeds` do, and a little of their own."""
    base = tiny_tensors()
    bodies = [body_of(base, seed) for seed in seeds]
    own = body_of(base, 1000 + number, 1e-4)
    made: dict[str, Array] = {}
    for name in bodies[0]:
        mean = np.mean([body[name] - base[name] for body in bodies], axis=0)
        made[name] = (own[name] - 2 * mean).astype(np.float32)
    return file_bytes(made)


def attacked(
    repo: Repository, honest: Iterable[int] = range(1, 7), bad: int = 2, model: str = MODEL
) -> tuple[list[str], list[str]]:
    """Let attackers come first and honest ones behind them; return the ids of both."""
    fix_sketches(repo)
    seeds = list(honest)
    hostile = [
        repo.contributor(f"mallory{n}").contribute(against(seeds, n), model=model)
        for n in range(bad)
    ]
    repo.work()
    assert {receipt(repo, one)["state"] for one in hostile} == {"accepted"}
    return accepted(repo, seeds, model=model), hostile


def fused(repo: Repository, model: str = MODEL, version: str = "v1") -> list[str]:
    manifest = repo.get(f"/v1/models/{model}/bases/{version}")["manifest"]
    return [item["id"] for item in manifest["contributions"]]


@pytest.fixture
def open_round(empty: Repository) -> Repository:
    """A Repository whose model's rounds close with seven."""
    empty.model(min_contributions=7, screening=SCREENING)
    return empty


@only_sqlite
def test_who_came_first_is_held_back_when_the_round_closes(empty: Repository) -> None:
    repo = empty
    repo.model(min_contributions=8, max_contributions=8, screening=SCREENING)
    honest, hostile = attacked(repo)
    # Seven are its minimum; of the eight, two go.
    assert close_due(repo.ctx) == 0
    for one in hostile:
        told = receipt(repo, one)
        assert (told["state"], told["decided_at"]) == ("quarantined", None)
        assert told["reason"].startswith("Beside all of round 1: the cosine")
        assert "whole round" in told["hint"] and "maintainer" in told["hint"]
        (finding,) = [f for f in told["findings"] if f["check"] == "direction"]
        assert finding["verdict"] == "quarantine"
        assert finding["measured"] < finding["limit"] == -0.6
        checks = [f["check"] for f in told["findings"]]
        assert len(checks) == len(set(checks))
    assert {receipt(repo, one)["state"] for one in honest} == {"accepted"}
    # Told as usual, once.
    assert [event["contribution"] for event in events(repo, "contribution.quarantined")] == hostile
    with repo.ctx.database.read() as session:
        notes = session.scalars(
            select(AuditRow).where(AuditRow.action == "contribution.quarantined")
        ).all()
    assert [(note.by, note.token, note.subject) for note in notes] == [
        ("screening", None, one) for one in hostile
    ]
    # It has not enough any more, and says why.
    now = shown(repo, "open")
    assert (now["state"], now["accepted"], now["quarantined"], now["missing"]) == ("open", 6, 2, 2)
    assert now["reason"] == (
        "2 contributions stick out of it, and went into quarantine as it was to close."
    )
    assert close_due(repo.ctx) == 0
    assert len(events(repo, "contribution.quarantined")) == 2
    # Two more, and it closes without them.
    more = accepted(repo, [7, 8])
    assert close_due(repo.ctx) == 1
    repo.work()
    assert fused(repo) == [*honest, *more]
    assert shown(repo, 1)["reason"] is None
    assert {receipt(repo, one)["round"] for one in hostile} == {2}
    (checked,) = verify(repo.ctx, MODEL, "v1", repo.principal("max", "maintainer"))
    assert checked.fused and not checked.faults


@only_sqlite
def test_a_round_that_has_enough_without_them_closes_at_once(open_round: Repository) -> None:
    repo = open_round
    honest, hostile = attacked(repo, range(1, 8), 3)
    assert close_due(repo.ctx) == 1
    repo.work()
    assert fused(repo) == honest
    assert {receipt(repo, one)["state"] for one in hostile} == {"quarantined"}


@only_sqlite
def test_what_comes_into_the_round_for_another_is_compared_too(empty: Repository) -> None:
    repo = empty
    repo.model(min_contributions=6, max_contributions=6, screening=SCREENING)
    fix_sketches(repo)
    seeds = list(range(1, 8))
    hostile = [repo.contributor("mallory0").contribute(against(seeds, 0))]
    repo.work()
    honest = accepted(repo, seeds[:5])
    later = [repo.contributor("mallory1").contribute(against(seeds[:5], 1))]
    honest += accepted(repo, seeds[5:])
    repo.work()
    states = {receipt(repo, one)["state"] for one in later}
    assert close_due(repo.ctx) == 1
    repo.work()
    assert fused(repo) == honest[:6]
    assert {receipt(repo, one)["state"] for one in [*hostile, *later]} == {"quarantined"}, states


@only_sqlite
def test_by_hand_it_is_refused_where_the_method_has_too_few_left(empty: Repository) -> None:
    repo = empty
    repo.model(
        min_contributions=9, method="multi_krum", parameters={"byzantine": 1}, screening=SCREENING
    )
    honest, hostile = attacked(repo, range(1, 5), 1)
    client = repo.client(repo.token("max", "maintainer"))
    answer = client.post(f"/v1/models/{MODEL}/rounds/open/close", json={})
    assert (answer.status_code, answer.json()["code"]) == (409, "round_not_closable")
    assert answer.json()["detail"] == (
        f"Round 1 of {MODEL} stays open. 1 contribution sticks out of it, and went into quarantine "
        "as it was to close. It has 4 accepted now; multi_krum needs 5."
    )
    assert "contribution list" in answer.json()["hint"]
    assert {receipt(repo, one)["state"] for one in hostile} == {"quarantined"}
    assert {receipt(repo, one)["state"] for one in honest} == {"accepted"}


@only_sqlite
def test_whom_a_maintainer_has_released_is_left_alone(open_round: Repository) -> None:
    repo = open_round
    honest, hostile = attacked(repo)
    client = repo.client(repo.token("max", "maintainer"))
    assert client.post(f"/v1/models/{MODEL}/rounds/open/close", json={}).status_code == 200
    repo.work()
    for one in hostile:
        assert decide(repo, "release", one).status_code == 200
    more = accepted(repo, list(range(11, 16)))
    assert close_due(repo.ctx) == 1
    repo.work()
    assert set(fused(repo, version="v2")) == {*hostile, *more}
    assert fused(repo) == honest


@only_sqlite
def test_few_are_not_compared_and_nor_is_what_no_check_asks_for(empty: Repository) -> None:
    repo = empty
    repo.model(min_contributions=4, screening=SCREENING)
    honest, hostile = attacked(repo, range(1, 4), 1)
    assert close_due(repo.ctx) == 1
    repo.work()
    assert set(fused(repo)) == {*honest, *hostile}
    off = repo.model("demo/off", min_contributions=8, screening=ANY_UPDATE)
    honest, hostile = attacked(repo, model=off)
    assert close_due(repo.ctx) == 1
    repo.work()
    assert set(fused(repo, off)) == {*honest, *hostile}


@only_sqlite
def test_a_warning_leaves_it_in_with_a_remark(empty: Repository) -> None:
    repo = empty
    direction = {"cosine": DIRECTION, "action": "warn"}
    repo.model(min_contributions=8, screening={**SCREENING, "direction": direction})
    honest, hostile = attacked(repo)
    assert close_due(repo.ctx) == 1
    repo.work()
    assert set(fused(repo)) == {*honest, *hostile}
    for one in hostile:
        verdicts = {f["check"]: f["verdict"] for f in receipt(repo, one)["findings"]}
        assert verdicts["direction"] == "warn"


@only_sqlite
def test_a_kill_before_the_end_of_the_closing_leaves_all_as_it_was(
    open_round: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = open_round
    honest, hostile = attacked(repo, range(1, 8))

    class Killed(BaseException):
        pass

    def killed(*_: Any) -> Any:
        raise Killed

    with monkeypatch.context() as broken:
        broken.setattr(closing, "fault_point", killed)
        with pytest.raises(Killed):
            close_due(repo.ctx)
    assert {receipt(repo, one)["state"] for one in [*honest, *hostile]} == {"accepted"}
    assert not events(repo, "contribution.quarantined")
    assert close_due(repo.ctx) == 1
    repo.work()
    assert fused(repo) == honest
    assert len(events(repo, "contribution.quarantined")) == 2


def test_beside_a_withdrawal_and_a_release_everybody_is_in_one_place(empty: Repository) -> None:
    repo = empty
    maintainer = repo.principal("max", "maintainer")
    for place in range(2):
        model = repo.model(f"demo/m{place}", min_contributions=6, screening=SCREENING)
        honest, hostile = attacked(repo, range(1, 8), model=model)
        owner = repo.principal("mallory0")
        withdrawn, _ = together(
            lambda one=hostile[0], owner=owner: withdraw(repo.ctx, one, Withdrawal(), owner),
            lambda: close_due(repo.ctx),
        )
        released, _ = together(
            lambda one=hostile[1]: decisions.release(repo.ctx, one, WHY, maintainer),
            lambda: close_due(repo.ctx),
        )
        repo.work()
        assert withdrawn.changed and receipt(repo, hostile[0])["state"] == "withdrawn"
        assert released.changed and receipt(repo, hostile[1])["state"] == "accepted"
        assert fused(repo, model) == honest


@only_sqlite
def test_what_was_taken_before_anything_was_measured_is_no_hindrance(
    open_round: Repository,
) -> None:
    repo = open_round
    honest, hostile = attacked(repo, range(1, 8))
    with repo.ctx.database.write() as session:
        row = session.scalars(select(ContributionRow).where(ContributionRow.id == honest[0])).one()
        row.sketch = row.measures = None
    assert close_due(repo.ctx) == 1
    assert {receipt(repo, one)["state"] for one in hostile} == {"quarantined"}
    assert receipt(repo, honest[0])["state"] == "accepted"
