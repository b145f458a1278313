"""Policies that can never close or contradict themselves are refused, and told why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from coldfusion_shared.rounds.closing import needed_to_close
from coldfusion_shared.rounds.limits import limits
from coldfusion_shared.schemas.models import Policy
from tests.shared.rounds.accepted import KINDS, limit_sets

SUITE = {"kind": "suite", "suite": "text-10"}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"min_contributions": 4, "max_contributions": 3}, "smaller than min_contributions"),
        ({"min_contributors": 4, "max_contributions": 3}, "smaller than min_contributors"),
        ({"by_hand": True, "deadline_seconds": 60}, "by_hand and deadline_seconds"),
        (
            {"max_contributions": 4, "max_share_per_contributor": 0.2},
            "max_share_per_contributor needs rounds of 5 contributions, each of another "
            "contributor, and a round has 4 at most",
        ),
        ({"max_contributions": 2, "max_share_per_dataset": 0.4}, "each of another data set"),
        ({"max_share_per_task": 0.00001}, "rounds of 100000 contributions"),
        ({"line_search": [0.5, 1.0]}, "line_search needs a gate of kind suite"),
        ({"line_search": [1.0], "gate": SUITE}, "two server learning rates at least"),
        ({"line_search": [1.0, 1.0], "gate": SUITE}, "a server learning rate twice"),
        (
            {"line_search": [0.5, 1.0], "gate": SUITE, "server_lr": 1.0},
            "line_search and server_lr contradict each other",
        ),
        (
            {"line_search": [0.5, 1.0], "gate": SUITE, "server_lr": "auto"},
            "line_search and server_lr contradict each other",
        ),
    ],
)
def test_it_is_refused(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Policy.model_validate(given)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"min_contributions": 3, "max_contributions": 3, "min_contributors": 3},
        {"by_hand": True, "min_contributions": 5, "max_contributions": 8},
        {"max_contributions": 5, "max_share_per_contributor": 0.2},
        {"max_share_per_task": 0.0001},
        {"max_share_per_task": 1.0, "max_contributions": 1, "min_contributions": 1},
        {"line_search": [0.5, 1.0, 2.0], "gate": SUITE},
    ],
)
def test_it_is_taken(given: dict[str, object]) -> None:
    Policy.model_validate(given)


@given(limit_sets(*KINDS), st.integers(1, 12), st.integers(1, 12), st.none() | st.just(60))
def test_what_is_taken_can_close(
    found: dict[str, float | int | None], low: int, most: int, seconds: int | None
) -> None:
    given = {
        "min_contributions": low,
        "max_contributions": most,
        "deadline_seconds": seconds,
        **found,
    }
    try:
        policy = Policy.model_validate(given)
    except ValidationError:
        return
    needed = needed_to_close(policy)
    assert needed <= most
    assert all(limit.most(needed) for limit in limits(policy))
