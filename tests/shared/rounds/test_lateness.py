"""How late a contribution is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.rounds.lateness import distance, factor, too_old
from coldfusion_shared.schemas.models import Policy

# v3 was published, rolled back to v1, and v4 was fused onto that.
TREE = {0: None, 1: 0, 2: 1, 3: 2, 4: 1, 5: 4}


@pytest.mark.parametrize(
    ("base", "head", "steps"),
    [(0, 0, 0), (3, 3, 0), (0, 3, 3), (3, 0, 3), (1, 5, 2), (3, 4, 3), (3, 1, 2), (2, 5, 3)],
)
def test_steps_are_counted_over_the_base_that_both_come_from(
    base: int, head: int, steps: int
) -> None:
    assert distance(TREE, base, head) == steps


def test_bases_that_nobody_knows_raise_nothing() -> None:
    assert distance({}, 3, 3) == 0
    assert distance({}, 3, 4) == 2
    assert distance({0: None, 1: 0, 2: None}, 1, 2) == 3
    assert distance({1: 2, 2: 1}, 1, 2) == 1


def test_a_late_one_counts_less() -> None:
    assert [factor(staleness, 0.5) for staleness in (0, 3)] == [1.0, 0.5]
    assert factor(3, 0) == 1.0


def test_too_old_is_what_is_later_than_the_policy_allows() -> None:
    policy = Policy(max_staleness=3)
    assert [too_old(policy, staleness) for staleness in (0, 3, 4)] == [False, False, True]
    assert too_old(Policy(max_staleness=0), 1)
    assert not too_old(Policy(max_staleness=0), 0)


trees = st.lists(st.integers(0, 100), max_size=30).map(
    lambda drawn: {0: None} | {place + 1: value % (place + 1) for place, value in enumerate(drawn)}
)


@given(trees, st.data())
def test_distances_are_those_of_a_tree(parents: dict[int, int | None], data: st.DataObject) -> None:
    one, two, three = (data.draw(st.sampled_from([*parents])) for _ in range(3))
    assert distance(parents, one, two) == distance(parents, two, one)
    assert (distance(parents, one, two) == 0) == (one == two)
    through = distance(parents, one, two) + distance(parents, two, three)
    assert distance(parents, one, three) <= through
    parent = parents[one]
    assert parent is None or distance(parents, one, parent) == 1


@given(st.integers(0, 10_000), st.floats(0, 10))
def test_later_never_counts_more(staleness: int, exponent: float) -> None:
    assert 0 < factor(staleness + 1, exponent) <= factor(staleness, exponent) <= 1
