"""When a round closes, what it waits for until then, and what it says of that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.rounds.closing import (
    Missing,
    Waiting,
    choose,
    deadline,
    is_due,
    missing,
    needed_to_close,
    next_closing,
)
from coldfusion_shared.schemas.models import Policy
from tests.shared.rounds.accepted import KINDS, nested, of, policies, waiting

OPENED = datetime(2026, 1, 1, tzinfo=UTC)
LATER = OPENED + timedelta(days=400)
ages = st.integers(0, 2000).map(lambda seconds: timedelta(seconds=seconds))
times = st.none() | ages.map(lambda age: OPENED + age)
without_limits = st.builds(
    lambda low, more, seconds: Policy(
        min_contributions=low,
        max_contributions=None if more is None else low + more,
        deadline_seconds=seconds,
    ),
    st.integers(1, 20),
    st.none() | st.integers(0, 20),
    st.none() | st.integers(1, 1000),
)


def _accepted(count: int) -> list[Waiting]:
    return waiting(*(f"u{place}" for place in range(count)))


def _due(policy: Policy, found: list[Waiting], age: timedelta = timedelta(0)) -> bool:
    return is_due(policy, found, OPENED, None, OPENED + age)


@given(without_limits, st.integers(0, 60), ages)
def test_a_round_never_closes_under_its_minimum(
    policy: Policy, accepted: int, age: timedelta
) -> None:
    if _due(policy, _accepted(accepted), age):
        assert accepted >= policy.min_contributions


@given(without_limits, ages)
def test_a_full_round_closes_at_once(policy: Policy, age: timedelta) -> None:
    if policy.max_contributions is not None:
        assert _due(policy, _accepted(policy.max_contributions), age)


@given(without_limits, st.integers(0, 60))
def test_a_round_with_its_minimum_closes_at_its_deadline_and_not_before(
    policy: Policy, accepted: int
) -> None:
    latest = deadline(policy, OPENED)
    if latest is None or accepted < policy.min_contributions:
        return
    found = _accepted(accepted)
    assert is_due(policy, found, OPENED, None, latest)
    full = policy.max_contributions is not None and accepted >= policy.max_contributions
    assert is_due(policy, found, OPENED, None, latest - timedelta(microseconds=1)) == full


@given(without_limits, ages)
def test_without_deadline_a_round_closes_at_its_maximum_else_its_minimum(
    policy: Policy, age: timedelta
) -> None:
    if policy.deadline_seconds is not None:
        return
    needed = policy.max_contributions or policy.min_contributions
    assert needed_to_close(policy) == needed
    assert _due(policy, _accepted(needed), age)
    assert not _due(policy, _accepted(needed - 1), age)


@given(without_limits, st.integers(0, 60))
def test_without_limits_what_is_missing_is_the_rest(policy: Policy, accepted: int) -> None:
    rest = max(0, needed_to_close(policy) - accepted)
    assert missing(policy, _accepted(accepted)) == Missing(rest, 0 if not rest or accepted else 1)


@given(policies(*KINDS), nested(10), times, ages, ages)
def test_what_is_due_stays_due(
    policy: Policy, found: list[Waiting], close_at: datetime | None, age: timedelta, more: timedelta
) -> None:
    if is_due(policy, found, OPENED, close_at, OPENED + age):
        assert is_due(policy, found, OPENED, close_at, OPENED + age + more)


@given(policies(*KINDS), nested(10), times, ages, st.sampled_from(["sst2", "stsb", None]))
def test_one_more_of_a_new_contributor_never_makes_it_less_due(
    policy: Policy,
    found: list[Waiting],
    close_at: datetime | None,
    age: timedelta,
    dataset: str | None,
) -> None:
    task = {"sst2": "classification", "stsb": "regression", None: None}[dataset]
    more = [*found, Waiting("new", "new", dataset, task, len(found))]
    if is_due(policy, found, OPENED, close_at, OPENED + age):
        assert is_due(policy, more, OPENED, close_at, OPENED + age)


@given(policies(*KINDS), nested(10))
def test_nothing_is_missing_exactly_where_it_closes_by_its_deadline(
    policy: Policy, found: list[Waiting]
) -> None:
    assert is_due(policy, found, OPENED, None, LATER) == (missing(policy, found) == Missing(0, 0))


@given(policies(*KINDS), nested(10))
def test_what_is_missing_is_enough_if_all_is_new(policy: Policy, found: list[Waiting]) -> None:
    lacking = missing(policy, found).contributions
    new = [
        Waiting(f"n{place}", f"n{place}", f"n{place}", f"n{place}", len(found) + place)
        for place in range(lacking)
    ]
    assert is_due(policy, [*found, *new], OPENED, None, LATER)
    # And one fewer is not.
    assert not lacking or not is_due(policy, [*found, *new[1:]], OPENED, None, LATER)


@given(policies(*KINDS), nested(10))
def test_no_more_groups_are_missing_than_contributions(
    policy: Policy, found: list[Waiting]
) -> None:
    lacking = missing(policy, found)
    groups = (lacking.contributors, lacking.datasets, lacking.tasks)
    assert all(0 <= count <= lacking.contributions for count in groups)


@pytest.mark.parametrize(
    ("given", "rows", "text"),
    [
        ({}, ["alice"], "Needs 1 more accepted contribution."),
        ({}, ["alice", "bob"], "Has all that it needs."),
        (
            {"min_contributors": 3},
            of("alice", 5),
            "Needs 2 more accepted contributions, from 2 further contributors.",
        ),
        (
            {"min_contributions": 4, "min_contributors": 2},
            of("alice", 1),
            "Needs 3 more accepted contributions, from 1 further contributor at least.",
        ),
        (
            {"max_share_per_contributor": 0.2},
            ["alice", "bob", "carol", *of("alice", 9)],
            "Needs 2 more accepted contributions, from 2 further contributors.",
        ),
        (
            # One of five may have 1, one of six 2.
            {"max_share_per_contributor": 1 / 3, "min_contributions": 5},
            ["alice", "alice", "bob", "bob", "carol"],
            "Needs 1 more accepted contribution.",
        ),
        (
            {"max_per_dataset": 1, "min_contributions": 3},
            ["alice sst2", "bob sst2"],
            "Needs 2 more accepted contributions, on 2 further data sets.",
        ),
        (
            {"max_share_per_task": 0.5},
            ["alice sst2 classification", "bob trec classification"],
            "Needs 1 more accepted contribution, for 1 further task.",
        ),
        ({"by_hand": True}, ["alice"], "A maintainer closes it by hand."),
        (
            {"by_hand": True, "min_contributions": 9, "max_share_per_contributor": 0.5},
            of("alice", 5),
            "Needs 1 more accepted contribution, from 1 further contributor; then a maintainer "
            "closes it by hand.",
        ),
    ],
)
def test_what_is_missing_in_words(given: dict[str, object], rows: list[str], text: str) -> None:
    assert missing(Policy.model_validate(given), waiting(*rows)).text == text


@pytest.mark.parametrize(
    ("given", "rows", "text"),
    [
        ({"min_contributions": 9}, [], "Needs 1 more accepted contribution."),
        ({"min_contributions": 9, "min_contributors": 3}, ["alice"], "Has enough for the time"),
        ({"by_hand": True}, ["alice"], "Has enough for the time"),
        (
            {"max_share_per_contributor": 0.5},
            of("alice", 5),
            "Needs 1 more accepted contribution, from 1 further contributor.",
        ),
    ],
)
def test_at_a_set_time_the_minimum_is_not_asked_for(
    given: dict[str, object], rows: list[str], text: str
) -> None:
    policy, found = Policy.model_validate(given), waiting(*rows)
    lacking = missing(policy, found, at_set_time=True)
    assert lacking.text.startswith(text)
    assert (lacking.contributions == 0) == is_due(policy, found, OPENED, OPENED, OPENED)


@pytest.mark.parametrize("given", [{"by_hand": True}, {"min_contributions": 5}])
def test_what_a_method_needs_is_missing_by_hand_too(given: dict[str, object]) -> None:
    policy = Policy.model_validate(given)
    hurried = not policy.by_hand
    found = _accepted(2)
    assert missing(policy, found, least=5, at_set_time=hurried).contributions == 3


def test_a_quorum_is_of_those_that_are_chosen() -> None:
    policy = Policy(min_contributors=2, max_contributions=3, max_per_dataset=2)
    assert not _due(policy, waiting("alice sst2", "alice sst2", "alice trec"))
    assert _due(policy, waiting("alice sst2", "alice sst2", "alice trec", "bob trec"))
    # bob's only contribution does not fit in.
    policy = Policy(min_contributors=2, max_per_dataset=1)
    assert not _due(policy, waiting("alice sst2", "bob sst2"))


def test_by_hand_it_never_closes_by_itself() -> None:
    policy = Policy(by_hand=True, max_contributions=3)
    assert not _due(policy, _accepted(5), LATER - OPENED)
    assert len(choose(policy, _accepted(5)).chosen) == 3


def test_at_the_time_that_a_maintainer_set_it_closes_with_what_it_has() -> None:
    at = OPENED + timedelta(hours=1)
    for policy in (Policy(by_hand=True), Policy(min_contributions=9)):
        assert not is_due(policy, _accepted(1), OPENED, at, at - timedelta(microseconds=1))
        assert is_due(policy, _accepted(1), OPENED, at, at)
        assert not is_due(policy, [], OPENED, at, at)
    # Strict shares hold by then, too.
    share = Policy(by_hand=True, max_share_per_contributor=0.5)
    assert not is_due(share, waiting("alice"), OPENED, at, at)


def test_before_that_time_it_still_closes_by_its_policy() -> None:
    at = OPENED + timedelta(hours=1)
    assert is_due(Policy(), _accepted(2), OPENED, at, OPENED)


def test_the_next_closing_is_the_first_that_has_not_passed() -> None:
    policy, at = Policy(deadline_seconds=60), OPENED + timedelta(hours=1)
    latest = OPENED + timedelta(seconds=60)
    found = _accepted(2)
    assert next_closing(Policy(), found, OPENED, None, OPENED) is None
    assert next_closing(policy, found, OPENED, None, OPENED) == latest
    assert next_closing(policy, found, OPENED, at, OPENED) == latest
    assert next_closing(policy, found, OPENED, at, latest) == at
    assert next_closing(policy, found, OPENED, at, LATER) is None
    assert next_closing(Policy(by_hand=True), found, OPENED, at, OPENED) == at


def test_a_deadline_that_passed_without_its_minimum_is_no_closing_to_come() -> None:
    policy = Policy(min_contributions=8, deadline_seconds=60)
    latest = OPENED + timedelta(seconds=60)
    assert next_closing(policy, _accepted(1), OPENED, None, OPENED) == latest
    assert next_closing(policy, _accepted(1), OPENED, None, latest) is None


@given(policies(*KINDS), nested(10), ages)
def test_beside_a_set_time_it_closes_when_it_says(
    policy: Policy, found: list[Waiting], age: timedelta
) -> None:
    at = OPENED + age + timedelta(seconds=1)
    if is_due(policy, found, OPENED, at, OPENED) or not choose(policy, found).chosen:
        return
    told = next_closing(policy, found, OPENED, at, OPENED)
    assert told is not None
    assert is_due(policy, found, OPENED, at, told)
    assert not is_due(policy, found, OPENED, at, told - timedelta(microseconds=1))
