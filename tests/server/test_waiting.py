"""What waits for a maintainer: which things, told to whom, in which words."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from coldfusion_server.dashboard import words
from coldfusion_server.db.tables import (
    BaseRow,
    ContributionRow,
    EvaluationTryRow,
    EventRow,
    LeaseRow,
    ReplayRow,
    RoundRow,
)
from coldfusion_server.services import waiting as service
from coldfusion_server.services.evaluation_tries import DIED, MAX_TRIES
from coldfusion_server.services.waiting import IDLE, MOST, sentence_of
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.replays import ReplayState
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.waiting import ModelWaiting, Waiting, WaitingItem
from tests.server.backends import both_databases
from tests.server.gated import fused, gated, policy
from tests.server.lines import replay, three_rounds
from tests.server.repository import ANY_UPDATE, MODEL, Json, Repository, body_file, repository

PRIVATE = "acme/secret"
# It lets pass what is nearly nothing, and holds back all that the tests send.
STRICT = {**ANY_UPDATE, "magnitude": {"relative_norm": 1e-9, "action": "quarantine"}}


def asked(repo: Repository, who: str | None = "maintainer", query: str = "") -> Json:
    token = None if who is None else repo.token(f"a {who}".replace(" ", "-"), who)
    return repo.get(f"/v1/waiting{query}", token)


def items(repo: Repository, kind: str) -> list[Json]:
    return [item for item in asked(repo)["items"] if item["kind"] == kind]


def one(repo: Repository, kind: str) -> Json:
    (item,) = items(repo, kind)
    return item


def quarantine(repo: Repository, number: int = 1, model: str = MODEL, first: int = 1) -> list[str]:
    """Have contributions held back by screening; return their ids."""
    ids = []
    for seed in range(first, first + number):
        ids.append(repo.contributor(f"c{seed}").contribute(body_file(seed), model=model))
    repo.work()
    return ids


@pytest.fixture
def strict(empty: Repository) -> Repository:
    empty.model(screening=STRICT)
    return empty


def test_nothing_waits_at_first(repo: Repository) -> None:
    assert asked(repo) == {"models": [], "items": []}
    quiet = repo.contributor("ann").contribute(body_file(1))
    repo.work()
    assert repo.contributor("ann").receipt(quiet)["state"] == "accepted"
    assert asked(repo) == {"models": [], "items": []}


def test_a_contribution_in_quarantine_waits_until_it_is_decided_on(strict: Repository) -> None:
    (odd,) = quarantine(strict)
    item = one(strict, "quarantine")
    assert (item["model"], item["subject"]) == (MODEL, odd)
    assert item["address"] == f"/contributions/{odd}"
    assert item["sentence"].startswith("The contribution of c1 to round 1 is in quarantine: ")
    assert item["since"] == "2026-06-01T12:00:00Z"
    (told,) = asked(strict, None)["models"]
    assert told == {
        "model": MODEL,
        "counts": {"quarantine": 1},
        "sentence": "1 contribution waits for a maintainer",
    }
    client = strict.client(strict.token("max", "maintainer"))
    answer = client.post(f"/v1/contributions/{odd}/reject", json={"reason": "a copy"})
    assert answer.status_code == 200, answer.text
    assert asked(strict) == {"models": [], "items": []}


@both_databases
def test_items_are_limited_and_counts_are_not(
    strict: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST", 2)
    ids = quarantine(strict, 3)
    found = asked(strict)
    assert [item["subject"] for item in found["items"]] == ids[:2]
    assert found["models"][0]["counts"] == {"quarantine": 3}
    assert found["models"][0]["sentence"] == "3 contributions wait for a maintainer"
    assert MOST > 2


@pytest.mark.parametrize("who", [None, "reader", "contributor", "evaluator"])
def test_those_who_are_no_maintainers_see_how_much_and_no_more(
    strict: Repository, who: str | None
) -> None:
    quarantine(strict)
    found = asked(strict, who)
    assert found["items"] == [] and found["models"][0]["counts"] == {"quarantine": 1}


@both_databases
def test_a_private_model_is_not_told_of(strict: Repository) -> None:
    strict.model(PRIVATE, public=False, screening=STRICT)
    quarantine(strict, model=PRIVATE, first=7)
    assert asked(strict, None) == {"models": [], "items": []}
    assert [one["model"] for one in asked(strict, "reader")["models"]] == [PRIVATE]
    # A token for other models is as none.
    limited = strict.token("lim", "maintainer", [MODEL])
    assert strict.get("/v1/waiting", limited) == {"models": [], "items": []}
    answer = strict.client(limited).get(f"/v1/waiting?model={PRIVATE}")
    assert answer.status_code == 404
    theirs = strict.get("/v1/waiting", strict.token("own", "maintainer", [PRIVATE]))
    assert [one["model"] for one in theirs["items"]] == [PRIVATE]


def test_a_maintainer_of_one_model_gets_the_counts_of_other_public_ones(
    strict: Repository,
) -> None:
    strict.model("demo/other", screening=STRICT)
    quarantine(strict)
    quarantine(strict, model="demo/other", first=5)
    found = strict.get("/v1/waiting", strict.token("own", "maintainer", ["demo/other"]))
    assert [one["model"] for one in found["models"]] == ["demo/other", MODEL]
    assert [one["model"] for one in found["items"]] == ["demo/other"]
    alone = asked(strict, "maintainer", f"?model={MODEL}")
    assert [one["model"] for one in alone["items"] + alone["models"]] == [MODEL, MODEL]


def test_what_a_rejected_round_set_aside_waits_as_one_round(repo: Repository) -> None:
    policy(repo, gate={"kind": "norm", "max_relative_norm": 1e-9}, screening=ANY_UPDATE)
    fused(repo)
    item = one(repo, "set_aside")
    assert (item["subject"], item["address"]) == ("1", f"/models/{MODEL}/rounds/1")
    assert item["sentence"].startswith("The gate rejected round 1, and 2 contributions are set")
    assert asked(repo)["models"][0]["sentence"] == "1 round waits for a maintainer"
    client = repo.client(repo.token("max", "maintainer"))
    answer = client.post(f"/v1/models/{MODEL}/rounds/1/again", json={})
    assert answer.status_code == 200, answer.text
    assert items(repo, "set_aside") == []


def test_a_candidate_waits_for_evaluators_first_and_then_for_a_maintainer(
    repo: Repository,
) -> None:
    gated(repo, timeout_seconds=3600)
    fused(repo)
    assert asked(repo)["items"] == []
    repo.clock.advance(hours=1)
    item = one(repo, "gate")
    assert item["sentence"].startswith("The candidate of round 1 was not measured in time")
    assert item["since"] == "2026-06-01T13:00:00Z"


def round_row(repo: Repository, **values: Any) -> None:
    with repo.ctx.database.write() as session:
        row = session.scalars(select(RoundRow)).one()
        for name, value in values.items():
            setattr(row, name, value)


def test_a_round_that_failed_says_why_and_when_it_is_tried_again(repo: Repository) -> None:
    now = repo.clock.now
    round_row(
        repo, state=RoundState.FAILED, closed_at=now, attempts=2, reason="The disk is full.",
        retry_at=now + timedelta(minutes=5),
    )  # fmt: skip
    item = one(repo, "failed")
    assert item["sentence"] == (
        "Round 1 could not be fused and is tried again by itself at 2026-06-01 12:05 UTC: "
        "The disk is full."
    )


def test_a_round_that_nothing_works_on_is_told_after_a_while(repo: Repository) -> None:
    round_row(repo, state=RoundState.CLOSED, closed_at=repo.clock.now)
    assert asked(repo)["items"] == []
    with repo.ctx.database.write() as session:
        until = repo.clock.now + IDLE
        number = session.scalars(select(RoundRow.id)).one()
        session.add(LeaseRow(key=f"round:{number}", holder="x", fencing=1, expires_at=until))
    repo.clock.advance(seconds=IDLE.total_seconds())
    assert asked(repo)["items"] == []
    repo.clock.advance(seconds=IDLE.total_seconds())
    assert "nothing works on it" in one(repo, "idle")["sentence"]


def test_a_round_that_is_due_says_what_it_lacks(repo: Repository) -> None:
    policy(repo, min_contributions=3, deadline_seconds=3600, screening=ANY_UPDATE)
    repo.contributor("ann").contribute(body_file(1))
    repo.work()
    assert asked(repo)["items"] == []
    repo.clock.advance(hours=2)
    item = one(repo, "lacking")
    assert item["sentence"] == (
        "Round 1 was to close at 2026-06-01 13:00 UTC. Needs 2 more accepted contributions."
    )
    assert item["since"] == "2026-06-01T13:00:00Z"


def test_a_round_that_closes_by_hand_waits_once_it_has_enough(repo: Repository) -> None:
    policy(repo, by_hand=True, screening=ANY_UPDATE)
    assert asked(repo)["items"] == []
    repo.contributor("ann").contribute(body_file(1))
    repo.work()
    item = one(repo, "by_hand")
    assert item["sentence"].startswith("Round 1 has 1 accepted contribution and closes only when")
    round_row(repo, close_at=repo.clock.now + timedelta(hours=1))
    assert items(repo, "by_hand") == []


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Repository, str]]:
    """A Repository with a replay that is ready, and its id."""
    with repository(tmp_path_factory.mktemp("replayed")) as opened:
        opened.model(min_contributions=2)
        _, ids = three_rounds(opened)
        asked_for = replay(opened, without=[ids[1][0]], status=201)
        opened.work()
        yield opened, asked_for["id"]


def test_a_replay_waits_for_those_alone_who_may_know_of_it(
    replayed: tuple[Repository, str],
) -> None:
    repo, identity = replayed
    item = one(repo, "replay")
    assert item["subject"] == identity
    assert repo.client(repo.token("max", "maintainer")).get(item["address"]).status_code == 200
    assert "2 bases were fused again, in place of those up to v3" in item["sentence"]
    assert asked(repo)["models"][0]["sentence"] == "1 replay waits for a maintainer"
    for who in (None, "reader", "contributor"):
        assert asked(repo, who) == {"models": [], "items": []}


def test_a_replay_that_failed_says_why(replayed: tuple[Repository, str]) -> None:
    repo, identity = replayed
    with repo.ctx.database.write() as session:
        row = session.get_one(ReplayRow, identity)
        row.state, row.failure = ReplayState.FAILED, "The store is away."
    try:
        assert "tried again by itself: The store is away." in one(repo, "replay_failed")["sentence"]
        assert asked(repo, None) == {"models": [], "items": []}
    finally:
        with repo.ctx.database.write() as session:
            session.get_one(ReplayRow, identity).state = ReplayState.READY


def give_up(repo: Repository, subject: str, **named: str) -> None:
    """Write down that the evaluator tries something no more."""
    with repo.ctx.database.write() as session:
        session.add(
            EvaluationTryRow(
                subject=subject, suite_digest="0" * 64, protocol="frozen", attempts=MAX_TRIES + 1
            )
        )
        if named:
            data = {**named, "suite": "s", "protocol": "frozen", "reason": "why"}
            values = {"type": "evaluation.failed", "model": MODEL, "at": repo.clock.now}
            session.add(EventRow(**values, data=data))


@both_databases
def test_what_the_evaluator_gave_up_waits_while_it_matters(repo: Repository) -> None:
    with repo.ctx.database.read() as session:
        base = session.scalars(select(BaseRow.id)).one()
    repo.clock.advance(hours=1)
    give_up(repo, str(base), version="v0")
    item = one(repo, "evaluation")
    assert (item["subject"], item["address"]) == ("v0", f"/models/{MODEL}/bases/v0")
    assert item["sentence"].endswith(f"v0, frozen, and tries no more: {DIED}")
    assert item["since"] == "2026-06-01T13:00:00Z"
    assert asked(repo, None)["models"][0]["sentence"] == "1 evaluation waits for a maintainer"
    fused(repo)
    assert items(repo, "evaluation") == []


def test_what_nobody_waits_for_is_looked_for_in_no_events(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    with repo.ctx.database.read() as session:
        base = session.scalars(select(BaseRow.id)).one()
    give_up(repo, str(base), version="v0")
    fused(repo)
    # Among many events that takes long, and everybody's overview asks.
    monkeypatch.setattr(service, "_times", lambda sight: pytest.fail("the events are searched"))
    assert items(repo, "evaluation") == []


def test_an_evaluation_of_a_contribution_that_is_decided_on_waits_no_more(
    repo: Repository,
) -> None:
    contribution = repo.contributor("ann").contribute(body_file(1))
    repo.work()
    give_up(repo, contribution)
    assert one(repo, "evaluation")["address"] == f"/contributions/{contribution}"
    with repo.ctx.database.write() as session:
        query = select(ContributionRow).where(ContributionRow.id == contribution)
        session.scalars(query).one().state = ContributionState.WITHDRAWN
    assert items(repo, "evaluation") == []


def test_a_candidate_of_a_replay_is_nobody_elses_business(
    replayed: tuple[Repository, str],
) -> None:
    repo, identity = replayed
    shown = repo.get(f"/v1/models/{MODEL}/replays/{identity}", repo.token("max", "maintainer"))
    give_up(repo, shown["steps"][0]["candidate"]["id"])
    assert f"base 1 of replay {identity}" in one(repo, "evaluation")["sentence"]
    assert asked(repo, "reader") == {"models": [], "items": []}


def test_what_waits_in_words() -> None:
    counts = {"quarantine": 2, "set_aside": 1, "failed": 1, "replay": 1}
    assert sentence_of(counts) == "2 contributions, 2 rounds and 1 replay wait for a maintainer"  # type: ignore[arg-type]
    assert sentence_of({"gate": 1}) == "1 round waits for a maintainer"


def test_a_model_that_is_not_there(repo: Repository) -> None:
    assert repo.client().get("/v1/waiting?model=no/where").status_code == 404


def test_the_waiting_of_an_empty_repository(tmp_path: Path) -> None:
    with repository(tmp_path) as opened:
        assert opened.get("/v1/waiting") == {"models": [], "items": []}


def item(model: str, kind: str, subject: str) -> WaitingItem:
    return WaitingItem.model_validate(
        {
            "kind": kind,
            "model": model,
            "subject": subject,
            "address": "/",
            "sentence": "s",
            "since": "2026-06-01T12:00:00Z",
        }  # fmt: skip
    )


def test_a_hundred_alike_hide_no_other() -> None:
    alike = [item("a/b", "quarantine", str(number)) for number in range(5)]
    others = [item("a/b", "failed", "1"), item("c/d", "quarantine", "9")]
    found = words.spread([*alike, *others])
    assert [one.subject for one in found] == ["0", "1", "9", "1", "2", "3", "4"]
    assert words.spread([]) == []
    assert [words.subject(one) for one in (alike[0], others[0])] == ["contribution 0", "round 1"]


def test_all_that_waits_is_counted_with_what_is_not_listed() -> None:
    models = [
        ModelWaiting(model="a/b", counts={"quarantine": 50, "failed": 1}, sentence=""),
        ModelWaiting(model="other/one", counts={"quarantine": 7}, sentence=""),
    ]
    found = Waiting(models=models, items=[item("a/b", "quarantine", "1")])
    assert words.all_waiting(found) == 51
