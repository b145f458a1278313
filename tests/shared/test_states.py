"""The tables of states: every pair."""

from __future__ import annotations

from itertools import product

import pytest

from coldfusion_shared import contributions, replays, rounds
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import InvalidTransition
from coldfusion_shared.replays import ReplayState
from coldfusion_shared.rounds import ENDS, UNDER_WAY, RoundState

ROUND_STEPS = {
    "open": "closed cancelled",
    "closed": "fusing cancelled",
    "fusing": "evaluating failed closed cancelled",
    "evaluating": "published rejected failed closed cancelled",
    "failed": "fusing evaluating closed cancelled",
    "published": "",
    "rejected": "",
    "cancelled": "",
}
CONTRIBUTION_STEPS = {
    "declared": "completed rejected withdrawn expired",
    "completed": "accepted rejected quarantined withdrawn",
    "quarantined": "accepted rejected withdrawn",
    "accepted": "fused set_aside rejected quarantined withdrawn",
    "set_aside": "accepted rejected withdrawn",
    "fused": "withdrawn",
    "rejected": "",
    "withdrawn": "",
    "expired": "",
}
REPLAY_STEPS = {
    "queued": "running discarded",
    "running": "ready failed discarded",
    "failed": "running discarded",
    "ready": "published discarded",
    "published": "",
    "discarded": "",
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


@pytest.mark.parametrize(("current", "target"), [*product(ReplayState, ReplayState)])
def test_a_replay_goes_only_where_the_table_says(current: ReplayState, target: ReplayState) -> None:
    if target in REPLAY_STEPS[current].split():
        replays.check_transition(current, target)
    else:
        with pytest.raises(InvalidTransition, match=f"from {current} to {target}"):
            replays.check_transition(current, target)


def test_final_states_are_those_that_nothing_follows() -> None:
    final = {state for state in ContributionState if not contributions.TRANSITIONS[state]}
    assert {"rejected", "withdrawn", "expired"} == final
    assert {"published", "rejected", "cancelled"} == ENDS


def test_a_round_is_under_way_between_its_closing_and_its_end() -> None:
    assert {"closed", "fusing", "evaluating", "failed"} == UNDER_WAY
