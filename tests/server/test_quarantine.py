"""Quarantine: what is beyond a limit counts for no round until a maintainer decides, once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from coldfusion_server.db.tables import ContributionRow
from coldfusion_server.services import closing, decisions, garbage, screening
from coldfusion_server.services.closing import close_due
from coldfusion_server.services.identity import screening_key
from coldfusion_server.services.withdrawal import withdraw
from coldfusion_server.worker import work_once
from coldfusion_shared.errors import RoundNotClosable, StateConflict
from coldfusion_shared.schemas.contributions import Decision, Withdrawal
from tests.server.backends import only_sqlite
from tests.server.repository import (
    ANY_UPDATE,
    MODEL,
    Repository,
    body_file,
    body_of,
    tiny_tensors,
)
from tests.server.test_garbage import later
from tests.server.test_rollback import bring_to
from tests.server.test_round_way import accepted, events, shown
from tests.shared.checkpoints import file_bytes

# Updates of the tests are a thousandth of the base's length; those that are longer wait.
LIMIT = {"relative_norm": 0.01, "action": "quarantine"}
STRICT = {**ANY_UPDATE, "magnitude": LIMIT}
WHY = Decision(reason="a new language")


@pytest.fixture
def strict(empty: Repository) -> Repository:
    """A Repository whose model holds back long updates, and whose rounds close with two."""
    empty.model(min_contributions=2, screening=STRICT)
    return empty


def long_file(seed: int = 9, scale: float = 0.05) -> bytes:
    return file_bytes(body_of(tiny_tensors(), seed, scale))


def held(repo: Repository, seed: int = 9, **where: Any) -> str:
    """Let somebody's contribution go into quarantine; return its id."""
    contribution = repo.contributor("odd").contribute(long_file(seed), **where)
    repo.work()
    assert receipt(repo, contribution)["state"] == "quarantined"
    return contribution


def receipt(repo: Repository, contribution: str) -> Any:
    return repo.contributor().receipt(contribution)


def decide(repo: Repository, what: str, contribution: str, reason: str = "a new language") -> Any:
    client = repo.client(repo.token("max", "maintainer"))
    return client.post(f"/v1/contributions/{contribution}/{what}", json={"reason": reason})


def kept(repo: Repository, contribution: str) -> bool:
    return repo.ctx.store.exists(receipt(repo, contribution)["files"][0]["sha256"])


@only_sqlite
def test_what_is_beyond_a_limit_waits_and_counts_for_nothing(strict: Repository) -> None:
    repo = strict
    odd = held(repo)
    told = receipt(repo, odd)
    assert "as long as the base" in told["reason"] and "maintainer" in told["hint"]
    found = {finding["check"]: finding for finding in told["findings"]}
    assert (found["magnitude"]["verdict"], found["magnitude"]["limit"]) == ("quarantine", 0.01)
    assert found["magnitude"]["measured"] == pytest.approx(0.05, rel=0.2)
    (event,) = events(repo, "contribution.quarantined")
    assert (event["contribution"], event["reason"]) == (odd, told["reason"])
    # It is told, and missing from every number that closes a round.
    accepted(repo, [1])
    now = shown(repo, "open")
    assert (now["accepted"], now["waiting"], now["quarantined"], now["missing"]) == (1, 0, 1, 1)
    assert repo.get(f"/v1/models/{MODEL}")["quarantined"] == 1
    assert close_due(repo.ctx) == 0
    page = repo.client().get(f"/contributions/{odd}").text
    assert "quarantined" in page and "0.01</td>" in page
    assert "1 in quarantine" in repo.client().get(f"/models/{MODEL}").text


@only_sqlite
def test_a_warning_lets_it_in_with_a_remark(empty: Repository) -> None:
    empty.model(screening={**ANY_UPDATE, "magnitude": {**LIMIT, "action": "warn"}})
    contribution = empty.contributor().contribute(long_file())
    empty.work()
    told = receipt(empty, contribution)
    assert (told["state"], told["reason"]) == ("accepted", None)
    assert [f["check"] for f in told["findings"] if f["verdict"] == "warn"] == ["magnitude"]


@only_sqlite
def test_a_release_puts_it_behind_what_the_round_has(strict: Repository) -> None:
    repo = strict
    odd = held(repo)
    (first,) = accepted(repo, [1])
    done = decide(repo, "release", odd)
    assert done.status_code == 200, done.text
    assert done.json()["changed"] and "It goes into round 1." in done.json()["sentence"]
    told = receipt(repo, odd)
    assert (told["state"], told["reason"], told["hint"]) == ("accepted", None, None)
    assert (told["decided_by"], told["decision"]) == ("max", "a new language")
    assert [e["by"] for e in events(repo, "contribution.accepted") if "by" in e] == ["max"]
    # A second click.
    again = decide(repo, "release", odd, "another reason").json()
    assert (again["changed"], again["contribution"]["decision"]) == (False, "a new language")
    assert close_due(repo.ctx) == 1
    repo.work()
    manifest = repo.get(f"/v1/models/{MODEL}/bases/v1")["manifest"]
    assert [item["id"] for item in manifest["contributions"]] == [first, odd]
    assert "Released from quarantine by max" in repo.client().get(f"/contributions/{odd}").text
    assert decide(repo, "release", odd).json()["changed"] is False


@only_sqlite
def test_a_rejection_is_for_good_and_its_bytes_go(strict: Repository) -> None:
    repo = strict
    odd = held(repo)
    assert kept(repo, odd)
    done = decide(repo, "reject", odd, "the third copy")
    assert done.json()["contribution"]["reason"] == "Rejected by max: the third copy"
    assert not kept(repo, odd)
    assert [event["by"] for event in events(repo, "contribution.rejected")] == ["max"]
    assert decide(repo, "reject", odd).json()["changed"] is False
    answer = decide(repo, "release", odd)
    assert (answer.status_code, answer.json()["code"]) == (409, "state_conflict")
    assert shown(repo, "open")["quarantined"] == 0


@only_sqlite
@pytest.mark.parametrize("what", ["release", "reject"])
def test_only_what_waits_is_decided_on_and_with_a_reason(repo: Repository, what: str) -> None:
    (first,) = accepted(repo, [1])
    answer = decide(repo, what, first)
    assert (answer.status_code, answer.json()["code"]) == (409, "state_conflict")
    assert f"contribution remove {first}" in answer.json()["hint"]
    assert decide(repo, what, first, "  ").status_code == 422
    assert decide(repo, what, "0" * 16).status_code == 404
    assert receipt(repo, first)["state"] == "accepted"


@only_sqlite
def test_garbage_collection_keeps_it_until_it_is_decided_on(strict: Repository) -> None:
    repo = strict
    odd = held(repo)
    later(repo)
    garbage.collect(repo.ctx, "test")
    assert kept(repo, odd)
    assert decide(repo, "release", odd).status_code == 200
    accepted(repo, [1])
    close_due(repo.ctx)
    repo.work()
    assert receipt(repo, odd)["state"] == "fused"


@only_sqlite
def test_it_goes_from_round_to_round_and_never_expires(strict: Repository) -> None:
    repo = strict
    odd = held(repo)
    accepted(repo, [1, 2])
    close_due(repo.ctx)
    repo.work()
    repo.clock.advance(days=400)
    repo.work()
    told = receipt(repo, odd)
    assert (told["state"], told["round"], told["carried"]) == ("quarantined", 2, 1)
    done = decide(repo, "release", odd).json()
    assert "1 bases behind" in done["sentence"] or "1 base behind" in done["sentence"]
    # What was told by then of the round that went on is gone, and what follows comes with it.
    accepted(repo, [3], base="v1")
    close_due(repo.ctx)
    repo.work()
    told = receipt(repo, odd)
    assert (told["result"], told["staleness"]) == ("v2", 1)


@only_sqlite
def test_one_that_is_too_late_by_now_is_not_released(strict: Repository) -> None:
    repo = strict
    odd = held(repo)
    accepted(repo, [1, 2])
    close_due(repo.ctx)
    repo.work()
    policy = {"max_staleness": 0, "screening": STRICT}
    client = repo.client(repo.token("max", "maintainer"))
    assert client.put(f"/v1/models/{MODEL}/policy", json=policy).status_code == 200
    answer = decide(repo, "release", odd)
    assert (answer.status_code, answer.json()["code"]) == (409, "state_conflict")
    assert "max_staleness" in answer.json()["hint"]
    assert receipt(repo, odd)["state"] == "quarantined"
    assert decide(repo, "reject", odd).json()["changed"]


@only_sqlite
@pytest.mark.parametrize("state", ["closed", "fusing", "evaluating"])
def test_released_while_a_round_is_under_way_it_goes_into_the_next(
    strict: Repository, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = strict
    odd = held(repo)
    taken = accepted(repo, [1, 2])
    close_due(repo.ctx)
    bring_to(repo, 1, state, monkeypatch)
    done = decide(repo, "release", odd).json()
    assert "It goes into round 2" in done["sentence"]
    repo.work()
    manifest = repo.get(f"/v1/models/{MODEL}/bases/v1")["manifest"]
    assert [item["id"] for item in manifest["contributions"]] == taken
    told = receipt(repo, odd)
    assert (told["state"], told["round"]) == ("accepted", 2)


@only_sqlite
def test_the_same_weights_are_taken_from_nobody_else_meanwhile(strict: Repository) -> None:
    repo = strict
    odd = held(repo)
    answer = repo.contributor("bob").declare(long_file())
    assert (answer.status_code, answer.json()["code"]) == (409, "already_contributed")
    # In another order, under another header.
    tensors = dict(reversed(body_of(tiny_tensors(), 9, 0.05).items()))
    copy = repo.contributor("bob").contribute(file_bytes(tensors, {"format": "np"}))
    repo.work()
    told = receipt(repo, copy)
    assert told["state"] == "rejected" and odd in told["reason"]
    assert decide(repo, "release", odd).status_code == 200


@only_sqlite
def test_a_scaled_copy_is_found_rounds_later_and_by_its_sketch_alone(repo: Repository) -> None:
    accepted(repo, [1, 2])
    close_due(repo.ctx)
    repo.work()
    base = tiny_tensors()
    half = {n: base[n] + np.float32(0.5) * (a - base[n]) for n, a in body_of(base, 1).items()}
    copy = repo.contributor("bob").contribute(file_bytes(half))
    repo.work()
    told = receipt(repo, copy)
    assert told["state"] == "quarantined"
    (finding,) = [one for one in told["findings"] if one["verdict"] == "quarantine"]
    assert finding["check"] == "copies" and finding["measured"] > 0.999


@only_sqlite
def test_two_copies_that_are_screened_at_once_do_not_both_pass(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_tensors()
    half = {n: base[n] + np.float32(0.5) * (a - base[n]) for n, a in body_of(base, 1).items()}
    copy = repo.contributor("bob").contribute(file_bytes(half))
    real, first = screening._screened, list[str]()

    def screened(*args: Any) -> Any:
        found = real(*args)
        if not first:
            # Another worker takes the other one while this one is looked at.
            first.append("")
            first[0] = repo.contributor("ann").contribute(body_file(1))
            assert work_once(repo.ctx, "another worker")
        return found

    monkeypatch.setattr(screening, "_screened", screened)
    repo.work()
    assert [receipt(repo, one)["state"] for one in (first[0], copy)] == ["accepted", "quarantined"]


@only_sqlite
def test_what_was_measured_is_kept_with_one_key_for_ever(repo: Repository) -> None:
    accepted(repo, [1, 2])
    with repo.ctx.database.read() as session:
        rows = session.execute(select(ContributionRow.measures, ContributionRow.sketch)).all()
    for measures, sketch in rows:
        assert 0.0005 < measures["norm"] / measures["base_norm"] < 0.005
        assert sketch is not None and sketch not in str(measures)
    assert screening_key(repo.ctx) == screening_key(repo.ctx)


# Races. Here the databases differ.


def together(*calls: Any) -> list[Any]:
    """Make all calls at once; return what each returned, or the error."""

    def caught(call: Any) -> Any:
        try:
            return call()
        except (StateConflict, RoundNotClosable) as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(caught, calls))


def test_a_release_beside_a_close_is_in_one_round_or_in_the_next(empty: Repository) -> None:
    repo = empty
    maintainer = repo.principal("max", "maintainer")
    for place in range(4):
        model = repo.model(f"demo/m{place}", min_contributions=2, screening=STRICT)
        odd = held(repo, seed=20 + place, model=model)
        accepted(repo, [1, 2], model=model)
        released, closed = together(
            lambda odd=odd: decisions.release(repo.ctx, odd, WHY, maintainer),
            lambda model=model: closing.close_by_hand(repo.ctx, model, "open", maintainer),
        )
        assert released.changed and closed.state == "closed"
        repo.work()
        told = receipt(repo, odd)
        fused = repo.get(f"/v1/models/{model}/bases/v1")["manifest"]["contributions"]
        in_it = odd in [item["id"] for item in fused]
        assert (told["state"], told["round"]) == (("fused", 1) if in_it else ("accepted", 2))
        assert len(fused) == 2 + in_it


def test_of_a_withdrawal_and_a_release_at_once_one_comes_first(empty: Repository) -> None:
    repo = empty
    repo.model(min_contributions=2, screening=STRICT)
    maintainer, owner = repo.principal("max", "maintainer"), repo.principal("odd")
    for seed in range(30, 34):
        odd = held(repo, seed=seed)
        released, withdrawn = together(
            lambda odd=odd: decisions.release(repo.ctx, odd, WHY, maintainer),
            lambda odd=odd: withdraw(repo.ctx, odd, Withdrawal(), owner),
        )
        # Whatever came first, it is taken back in the end.
        assert withdrawn.changed
        assert isinstance(released, StateConflict) or released.changed
        assert receipt(repo, odd)["state"] == "withdrawn"
    assert shown(repo, "open")["accepted"] == 0


def test_of_two_maintainers_at_once_one_decides(empty: Repository) -> None:
    repo = empty
    repo.model(min_contributions=2, screening=STRICT)
    maintainer = repo.principal("max", "maintainer")
    odd = held(repo)
    done = together(
        *[lambda: decisions.release(repo.ctx, odd, WHY, maintainer)] * 2,
        *[lambda: decisions.reject(repo.ctx, odd, WHY, maintainer)] * 2,
    )
    state = receipt(repo, odd)["state"]
    assert state in ("accepted", "rejected")
    assert sorted(isinstance(one, StateConflict) for one in done) == [False, False, True, True]
    decided = [one for one in done if not isinstance(one, StateConflict)]
    assert sorted(one.changed for one in decided) == [False, True]
