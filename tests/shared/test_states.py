"""The tables of states: every pair, and when a round closes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared import contributions, rounds
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import InvalidTransition
from coldfusion_shared.rounds import RoundState, deadline, is_due, missing_to_close
from coldfusion_shared.schemas.models import Policy

OPENED = datetime(2026, 1, 1, tzinfo=UTC)

ROUND_STEPS = {
    "open": "closed cancelled",
    "closed": "fusing cancelled",
    "fusing": "evaluating failed cancelled",
    "evaluating": "published rejected failed cancelled",
    "failed": "fusing cancelled",
    "published": "",
    "rejected": "",
    "cancelled": "",
}
CONTRIBUTION_STEPS = {
    "declared": "completed rejected withdrawn expired",
    "completed": "accepted rejected quarantined withdrawn",
    "quarantined": "accepted rejected withdrawn",
    "accepted": "fused rejected withdrawn",
    "fused": "withdrawn",
    "rejected": "",
    "withdrawn": "",
    "expired": "",
}


@pytest.mark.parametrize(("current", "target"), [*product(RoundState, RoundState)])
def test_a_round_goes_only_where_the_table_says(current: RoundState, target: RoundState) -> None:
    if target in ROUND_STEPS[current].split():
        rounds.check_transition(current, target)
    else:
        with pytest.raises(InvalidTransition, match=f"from {current} to {target}"):
            rounds.check_transition(current, target)


@pytest.mark.parametrize(("current", "target"), [*product(ContributionState, ContributionState)])
def test_a_contribution_goes_only_where_the_table_says(
    current: ContributionState, target: ContributionState
) -> None:
    if target in CONTRIBUTION_STEPS[current].split():
        contributions.check_transition(current, target)
    else:
        with pytest.raises(InvalidTransition, match=f"from {current} to {target}"):
            contributions.check_transition(current, target)


def test_final_states_are_those_that_nothing_follows() -> None:
    final = {state for state in ContributionState if not contributions.TRANSITIONS[state]}
    assert {"rejected", "withdrawn", "expired"} == final


policies = st.builds(
    lambda low, more, seconds: Policy(
        min_contributions=low,
        max_contributions=None if more is None else low + more,
        deadline_seconds=seconds,
    ),
    st.integers(1, 20),
    st.none() | st.integers(0, 20),
    st.none() | st.integers(1, 1000),
)
ages = st.integers(0, 2000).map(lambda seconds: timedelta(seconds=seconds))


@given(policies, st.integers(0, 60), ages)
def test_a_round_never_closes_under_its_minimum(
    policy: Policy, accepted: int, age: timedelta
) -> None:
    if is_due(policy, accepted, OPENED, OPENED + age):
        assert accepted >= policy.min_contributions


@given(policies, ages)
def test_a_full_round_closes_at_once(policy: Policy, age: timedelta) -> None:
    if policy.max_contributions is not None:
        assert is_due(policy, policy.max_contributions, OPENED, OPENED + age)


@given(policies, st.integers(0, 60))
def test_a_round_with_its_minimum_closes_at_its_deadline_and_not_before(
    policy: Policy, accepted: int
) -> None:
    latest = deadline(policy, OPENED)
    if latest is None or accepted < policy.min_contributions:
        return
    assert is_due(policy, accepted, OPENED, latest)
    full = policy.max_contributions is not None and accepted >= policy.max_contributions
    assert is_due(policy, accepted, OPENED, latest - timedelta(microseconds=1)) == full


@given(policies, ages)
def test_without_deadline_a_round_closes_at_its_maximum_else_its_minimum(
    policy: Policy, age: timedelta
) -> None:
    if policy.deadline_seconds is not None:
        return
    needed = policy.max_contributions or policy.min_contributions
    assert is_due(policy, needed, OPENED, OPENED + age)
    assert not is_due(policy, needed - 1, OPENED, OPENED + age)


@given(policies, st.integers(0, 60), ages)
def test_a_round_that_misses_something_is_not_due(
    policy: Policy, accepted: int, age: timedelta
) -> None:
    missing = missing_to_close(policy, accepted)
    assert missing >= 0
    if missing:
        assert not is_due(policy, accepted, OPENED, OPENED + age)
        assert missing_to_close(policy, accepted + missing) == 0
    elif policy.deadline_seconds is not None:
        assert is_due(policy, accepted, OPENED, OPENED + timedelta(days=400))


@given(policies, st.integers(0, 59), ages)
def test_one_more_never_reopens(policy: Policy, accepted: int, age: timedelta) -> None:
    if is_due(policy, accepted, OPENED, OPENED + age):
        assert is_due(policy, accepted + 1, OPENED, OPENED + age)
