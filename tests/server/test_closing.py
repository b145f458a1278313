"""How rounds close: quorums, shares and caps, at a time, by hand; and what they leave is told."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from coldfusion_server.db.tables import EventRow, ModelRow, RoundRow
from coldfusion_server.services.closing import close_due
from tests.server.backends import both_databases
from tests.server.repository import MODEL, Repository, body_file, declaration

Json = Any


def accepted(repo: Repository, name: str, *seeds: int, **work: str) -> list[str]:
    """Let a contributor have contributions accepted, with what is said of the work."""
    who, ids = repo.contributor(name), []
    for seed in seeds:
        raw = body_file(seed)
        answer = who.client.post(
            f"/v1/models/{MODEL}/contributions",
            json={**declaration(raw), "work": work},
            headers={"Idempotency-Key": secrets.token_hex(16)},
        )
        assert answer.status_code == 201, answer.text
        who.upload(answer.json()["upload"], raw)
        ids.append(str(answer.json()["contribution"]["id"]))
        assert who.complete(ids[-1]).status_code == 200
        repo.work()
        assert who.receipt(ids[-1])["state"] == "accepted"
    return ids


def shown(repo: Repository, number: int | str = "open") -> Json:
    return repo.get(f"/v1/models/{MODEL}/rounds/{number}")


def post_close(repo: Repository, number: int | str = "open", **body: Any) -> Any:
    client = repo.client(repo.token("max", "maintainer"))
    return client.post(f"/v1/models/{MODEL}/rounds/{number}/close", json=body)


def fused(repo: Repository, version: str) -> list[str]:
    manifest = repo.get(f"/v1/models/{MODEL}/bases/{version}")["manifest"]
    return [item["id"] for item in manifest["contributions"]]


def events(repo: Repository, kind: str) -> list[Json]:
    with repo.ctx.database.read() as session:
        return list(session.scalars(select(EventRow.data).where(EventRow.type == kind)))


# Quorums, shares and caps.


def test_a_quorum_waits_for_other_contributors(empty: Repository) -> None:
    empty.model(min_contributions=2, min_contributors=2)
    ids = accepted(empty, "ann", 1, 2, 3)
    assert close_due(empty.ctx) == 0
    waits = shown(empty)
    assert (waits["missing"], waits["missing_contributors"]) == (1, 1)
    assert waits["needs"] == "Needs 1 more accepted contribution, from 1 further contributor."
    ids += accepted(empty, "bob", 4)
    assert shown(empty)["needs"] == "Has all that it needs."
    assert close_due(empty.ctx) == 1
    empty.work()
    assert fused(empty, "v1") == ids


def test_what_a_cap_leaves_is_told_why_and_fused_in_the_next_round(empty: Repository) -> None:
    empty.model(min_contributions=2, max_per_contributor=1)
    first, second = accepted(empty, "ann", 1, 2)
    assert close_due(empty.ctx) == 0
    third = accepted(empty, "bob", 3)[0]
    assert close_due(empty.ctx) == 1
    receipt = empty.contributor().receipt(second)
    assert (receipt["state"], receipt["round"]) == ("accepted", 1)
    assert "ann has 1 contribution in this round already" in receipt["reason"]
    (kept,) = events(empty, "contribution.kept")
    assert (kept["contribution"], kept["reason"]) == (second, receipt["reason"])
    empty.work()
    assert fused(empty, "v1") == [first, third]
    receipt = empty.contributor().receipt(second)
    assert (receipt["state"], receipt["round"], receipt["carried"]) == ("accepted", 2, 1)
    fourth = accepted(empty, "cem", 4)[0]
    assert close_due(empty.ctx) == 1
    empty.work()
    assert fused(empty, "v2") == [second, fourth]
    receipt = empty.contributor().receipt(second)
    assert (receipt["state"], receipt["staleness"], receipt["reason"]) == ("fused", 1, None)


@both_databases
def test_a_share_of_a_data_set_is_kept_strictly(empty: Repository) -> None:
    empty.model(min_contributions=2, max_share_per_dataset=0.5)
    films = accepted(empty, "ann", 1, 2, dataset="films")
    assert close_due(empty.ctx) == 0
    assert "on 1 further data set" in shown(empty)["needs"]
    books = accepted(empty, "bob", 3, dataset="books")
    assert close_due(empty.ctx) == 1
    empty.work()
    assert fused(empty, "v1") == [films[0], *books]
    assert "'films' has 1 of the 2" in empty.contributor().receipt(films[1])["reason"]


@both_databases
def test_a_full_round_takes_contributors_in_turns(empty: Repository) -> None:
    empty.model(min_contributions=2, max_contributions=4, deadline_seconds=3600)
    anns = accepted(empty, "ann", 1, 2, 3)
    others = [accepted(empty, "bob", 4)[0], accepted(empty, "cem", 5)[0]]
    assert close_due(empty.ctx) == 1
    empty.work()
    assert fused(empty, "v1") == [*anns[:2], *others]
    reason = empty.contributor().receipt(anns[2])["reason"]
    assert reason == "The round has 4 contributions already, the most that it takes."


# At a time and by hand.


def test_a_round_closes_at_the_time_that_is_set_with_what_it_has(empty: Repository) -> None:
    empty.model(min_contributions=5)
    ids = accepted(empty, "ann", 1)
    at = empty.clock() + timedelta(hours=2)
    answer = post_close(empty, at=at.isoformat())
    assert (answer.status_code, answer.json()["state"]) == (200, "open")
    assert shown(empty)["closes_at"] == at.isoformat().replace("+00:00", "Z")
    assert shown(empty)["needs"] == "Has enough for the time that a maintainer has set."
    (event,) = events(empty, "round.scheduled")
    assert (event["round"], event["by"]) == (1, "max")
    assert close_due(empty.ctx) == 0
    empty.clock.advance(hours=2)
    assert close_due(empty.ctx) == 1
    empty.work()
    assert fused(empty, "v1") == ids
    # The time was this round's alone.
    assert shown(empty)["closes_at"] is None


def test_a_round_that_is_empty_at_its_time_closes_with_its_first_contribution(
    empty: Repository,
) -> None:
    empty.model(min_contributions=5)
    assert post_close(empty, at=(empty.clock() + timedelta(hours=1)).isoformat()).is_success
    empty.clock.advance(hours=2)
    assert close_due(empty.ctx) == 0
    assert shown(empty)["needs"].startswith("Needs 1 more accepted contribution")
    accepted(empty, "ann", 1)
    assert close_due(empty.ctx) == 1


@pytest.mark.parametrize("hours", [-1, 0])
def test_a_time_that_is_past_is_refused(repo: Repository, hours: int) -> None:
    answer = post_close(repo, at=(repo.clock() + timedelta(hours=hours)).isoformat())
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "is past" in answer.json()["detail"] and answer.json()["hint"]
    assert shown(repo)["closes_at"] is None


def test_a_time_without_a_zone_is_refused(repo: Repository) -> None:
    assert post_close(repo, at="2030-01-01T00:00:00").status_code == 422


def test_what_closes_by_hand_never_closes_by_itself(empty: Repository) -> None:
    empty.model(by_hand=True, min_contributions=1)
    assert shown(empty)["needs"].endswith("then a maintainer closes it by hand.")
    ids = accepted(empty, "ann", 1, 2)
    empty.clock.advance(days=300)
    assert close_due(empty.ctx) == 0
    assert shown(empty)["needs"] == "A maintainer closes it by hand."
    assert post_close(empty).json()["state"] == "closed"
    empty.work()
    assert fused(empty, "v1") == ids


@both_databases
def test_a_double_click_closes_one_round(empty: Repository) -> None:
    empty.model(by_hand=True)
    accepted(empty, "ann", 1)
    assert post_close(empty, 1).status_code == 200
    again = post_close(empty, 1)
    assert (again.status_code, again.json()["code"]) == (409, "state_conflict")
    assert "is closed, not open" in again.json()["detail"]
    empty.work()
    # The next one has nothing yet.
    late = post_close(empty, "open")
    assert (late.status_code, late.json()["code"]) == (409, "round_not_closable")


def test_what_the_limits_keep_out_is_said_when_a_round_cannot_be_closed(empty: Repository) -> None:
    empty.model(max_share_per_contributor=0.5)
    accepted(empty, "ann", 1, 2)
    answer = post_close(empty)
    assert (answer.status_code, answer.json()["code"]) == (409, "round_not_closable")
    assert "2 are kept for later" in answer.json()["detail"]


def test_only_maintainers_close_rounds(repo: Repository) -> None:
    client = repo.client(repo.token("bob"))
    answer = client.post(f"/v1/models/{MODEL}/rounds/open/close", json={})
    assert answer.status_code == 403


# Policies that contradict themselves.


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"min_contributions": 5, "max_contributions": 4}, "smaller than min_contributions"),
        ({"min_contributors": 5, "max_contributions": 4}, "smaller than min_contributors"),
        ({"by_hand": True, "deadline_seconds": 60}, "contradict each other"),
        (
            {"max_share_per_contributor": 0.2, "max_contributions": 4},
            "needs rounds of 5 contributions, each of another contributor",
        ),
        ({"line_search": [0.5, 1.0]}, "line_search needs a gate of kind suite"),
        ({"gate": {"kind": "suite"}}, "needs the name of a suite"),
        ({"gate": {"kind": "none", "max_negative_flips": 1}}, "belongs to a gate of kind suite"),
        ({"max_staleness": -1}, "greater than or equal to 0"),
        ({"max_share_per_task": 0}, "greater than 0"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused_in_words(
    repo: Repository, policy: Json, words: str
) -> None:
    before = repo.get(f"/v1/models/{MODEL}")["policy"]
    client = repo.client(repo.token("max", "maintainer"))
    answer = client.put(f"/v1/models/{MODEL}/policy", json=policy)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert words in answer.json()["detail"]
    assert repo.get(f"/v1/models/{MODEL}")["policy"] == before


# What a round cannot be fused from, and what holds up no other.


def withdraw(repo: Repository, contribution: str) -> None:
    client = repo.client(repo.token("max", "maintainer"))
    answer = client.post(f"/v1/contributions/{contribution}/withdraw", json={"reason": "x"})
    assert answer.status_code == 200, answer.text


def set_policy(repo: Repository, **policy: Any) -> None:
    client = repo.client(repo.token("max", "maintainer"))
    answer = client.put(f"/v1/models/{MODEL}/policy", json=policy)
    assert answer.status_code == 200, answer.text


def unknown_method(repo: Repository, table: type[ModelRow] | type[RoundRow]) -> None:
    """Let the policy of the first model or round name a method that is not installed."""
    with repo.ctx.database.write() as session:
        row: Any = session.get_one(table, 1)
        row.policy = {**(row.policy or {}), "method": "gone"}


def test_what_all_weighs_nothing_does_not_close_a_round(empty: Repository) -> None:
    empty.model(method="weighted_mean", min_contributions=2, contributor_weights={"a": 0, "b": 0})
    accepted(empty, "a", 1)
    accepted(empty, "b", 2)
    assert close_due(empty.ctx) == 0
    assert "by contributor_weights" in shown(empty)["needs"]
    answer = post_close(empty)
    assert (answer.status_code, answer.json()["code"]) == (409, "round_not_closable")
    assert "weighs 0" in answer.json()["detail"]
    accepted(empty, "c", 3)
    assert close_due(empty.ctx) == 1
    empty.work()
    assert shown(empty, 1)["state"] == "published"


def test_a_full_round_that_weighs_nothing_closes_with_the_first_that_counts(
    empty: Repository,
) -> None:
    weights = {"a": 0, "b": 0}
    empty.model(method="weighted_mean", max_contributions=2, contributor_weights=weights)
    first, kept = accepted(empty, "a", 1) + accepted(empty, "b", 2)
    assert close_due(empty.ctx) == 0
    assert "by contributor_weights" in shown(empty)["needs"]
    (counts,) = accepted(empty, "c", 3)
    assert close_due(empty.ctx) == 1
    empty.work()
    assert fused(empty, "v1") == [first, counts]
    receipt = empty.contributor("b").receipt(kept)
    assert (receipt["state"], receipt["round"]) == ("accepted", 2)


def test_a_round_whose_rest_weighs_nothing_is_cancelled(empty: Repository) -> None:
    empty.model(method="weighted_mean", min_contributions=1, contributor_weights={"a": 0})
    zero, one = accepted(empty, "a", 1) + accepted(empty, "b", 2)
    assert close_due(empty.ctx) == 1
    withdraw(empty, one)
    empty.work()
    assert shown(empty, 1)["state"] == "cancelled"
    assert empty.contributor().receipt(zero)["round"] == 2


@pytest.mark.parametrize("by_hand", [False, True])
def test_what_is_left_after_a_withdrawal_has_to_be_enough_for_the_policy(
    empty: Repository, by_hand: bool
) -> None:
    empty.model(min_contributions=3, min_contributors=3)
    ids = [one for seed, name in enumerate("abc", 1) for one in accepted(empty, name, seed)]
    if by_hand:
        assert post_close(empty).status_code == 200
    else:
        assert close_due(empty.ctx) == 1
    withdraw(empty, ids[0])
    empty.work()
    assert shown(empty, 1)["state"] == ("published" if by_hand else "cancelled")
    receipt = empty.contributor().receipt(ids[1])
    assert (receipt["state"], receipt["round"]) == (("fused", 1) if by_hand else ("accepted", 2))


def test_a_full_round_needs_only_its_minimum_after_a_withdrawal(empty: Repository) -> None:
    empty.model(min_contributions=2, max_contributions=3)
    ids = accepted(empty, "ann", 1, 2, 3)
    assert close_due(empty.ctx) == 1
    withdraw(empty, ids[0])
    empty.work()
    assert fused(empty, "v1") == ids[1:]


def test_what_its_share_keeps_out_after_a_withdrawal_goes_on(empty: Repository) -> None:
    empty.model(min_contributions=2, max_share_per_contributor=0.5)
    first, second = accepted(empty, "ann", 1, 2)
    others = accepted(empty, "bob", 3) + accepted(empty, "cem", 4)
    assert close_due(empty.ctx) == 1
    withdraw(empty, others[0])
    empty.work()
    assert fused(empty, "v1") == [first, others[1]]
    receipt = empty.contributor().receipt(second)
    assert (receipt["state"], receipt["round"], receipt["carried"]) == ("accepted", 2, 1)
    assert "ann has 1 of the 2 contributions in this round" in receipt["reason"]


def test_a_full_round_does_not_wait_for_screening(empty: Repository) -> None:
    empty.model(min_contributions=2, max_contributions=2)
    ids = accepted(empty, "ann", 1) + accepted(empty, "bob", 2)
    empty.contributor("cem").contribute(body_file(3))
    assert close_due(empty.ctx) == 1
    empty.work()
    assert fused(empty, "v1") == ids


def test_a_round_waits_for_what_had_arrived_and_not_for_ever(empty: Repository) -> None:
    empty.model(min_contributions=2, deadline_seconds=3600)
    accepted(empty, "ann", 1)
    accepted(empty, "bob", 2)
    empty.clock.advance(minutes=59)
    empty.contributor("cem").contribute(body_file(3))
    empty.clock.advance(minutes=10)
    assert close_due(empty.ctx) == 0
    empty.clock.advance(minutes=2)
    assert close_due(empty.ctx) == 1


def test_a_round_that_is_due_does_not_wait_for_what_arrives_later(empty: Repository) -> None:
    empty.model(min_contributions=2, deadline_seconds=3600)
    accepted(empty, "ann", 1)
    accepted(empty, "bob", 2)
    empty.clock.advance(minutes=61)
    empty.contributor("cem").contribute(body_file(3))
    assert close_due(empty.ctx) == 1


def test_a_model_whose_method_is_gone_holds_up_no_other(repo: Repository) -> None:
    repo.model("demo/two")
    for model in (MODEL, "demo/two"):
        for seed in (1, 2):
            repo.contributor(f"c{seed}").contribute(body_file(seed), model=model)
    repo.work()
    unknown_method(repo, ModelRow)
    assert close_due(repo.ctx) == 1
    assert repo.get("/v1/models/demo/two/rounds/1")["state"] == "closed"


def test_a_round_that_cannot_begin_says_so_and_holds_up_no_work(repo: Repository) -> None:
    accepted(repo, "ann", 1, 2)
    assert close_due(repo.ctx) == 1
    unknown_method(repo, RoundRow)
    waits = repo.contributor("cem").contribute(body_file(3))
    assert repo.work(limit=3) == 1
    assert repo.contributor().receipt(waits)["state"] == "accepted"
    assert (shown(repo, 1)["state"], "gone" in shown(repo, 1)["reason"]) == ("closed", True)
    pauses = []
    for _ in range(3):
        with repo.ctx.database.read() as session:
            retry_at = session.get_one(RoundRow, 1).retry_at
        assert retry_at is not None
        pauses.append(retry_at - repo.clock.now)
        repo.clock.now = retry_at
        repo.work(limit=3)
    assert pauses == [timedelta(seconds=s) for s in (5, 10, 20)]
    client = repo.client(repo.token("max", "maintainer"))
    answer = client.post(f"/v1/models/{MODEL}/rounds/1/cancel", json={"reason": "gone"})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_changed_policy_holds_for_what_was_accepted_already(
    empty: Repository, by_hand: bool
) -> None:
    empty.model(min_contributions=2)
    accepted(empty, "ann", 1, 2)
    assert close_due(empty.ctx) == 1
    empty.work()
    late = accepted(empty, "bob", 3, 4)
    set_policy(empty, min_contributions=2, max_staleness=0)
    if by_hand:
        assert post_close(empty).json()["code"] == "round_not_closable"
    else:
        assert close_due(empty.ctx) == 0
    for one in late:
        receipt = empty.contributor().receipt(one)
        assert (receipt["state"], receipt["round"]) == ("rejected", 2)
        assert "v1 is the newest base" in receipt["reason"]


def test_a_time_that_is_past_is_not_shown_while_another_is_ahead(empty: Repository) -> None:
    empty.model(min_contributions=2, deadline_seconds=60)
    at = empty.clock.now + timedelta(hours=1)
    assert post_close(empty, at=at.isoformat()).status_code == 200
    empty.clock.advance(minutes=2)
    assert shown(empty)["closes_at"] == at.isoformat().replace("+00:00", "Z")


def test_the_deadline_is_not_shown_beside_a_set_time_while_its_minimum_is_missing(
    empty: Repository,
) -> None:
    empty.model(min_contributions=8, deadline_seconds=3600)
    accepted(empty, "ann", 1)
    at = empty.clock.now + timedelta(hours=2)
    assert post_close(empty, at=at.isoformat()).status_code == 200
    assert shown(empty)["closes_at"] == at.isoformat().replace("+00:00", "Z")


def test_a_deadline_that_passed_without_the_minimum_is_not_shown(empty: Repository) -> None:
    empty.model(min_contributions=8, deadline_seconds=3600)
    accepted(empty, "ann", 1)
    assert shown(empty)["closes_at"] is not None
    empty.clock.advance(hours=2)
    assert shown(empty)["closes_at"] is None


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59-14:00", "2027-06-03T12:00:00Z"])
def test_a_time_too_far_ahead_is_refused(repo: Repository, at: str) -> None:
    answer = post_close(repo, at=at)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "366 days ahead" in answer.json()["detail"]
