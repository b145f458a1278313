"""Do intervals of averages hold what they promise where one base moves all data sets together?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.evaluate.statistics import DIFFERENCES, SCORES, joined, variances
from experiments.averages import Table, error_of

SETS, EXAMPLES, WORLDS = 22, 60, 400
# By how much a data set's own training moves it, in points; and how much single examples differ, of
# all seeds and of one, in a difference of two bases that are right or wrong.
OWN, EXAMPLE, REST = 1.0, 25.0, 20.0


def values(rng: np.random.Generator, line: float, seeds: int, sets: int = SETS) -> Any:
    """What a base gains that is worth nothing, in points, (data sets, seeds, examples)."""
    return (
        line * rng.standard_normal((1, seeds, 1))
        + OWN * rng.standard_normal((sets, seeds, 1))
        + EXAMPLE * rng.standard_normal((sets, 1, EXAMPLES))
        + REST * rng.standard_normal((sets, seeds, EXAMPLES))
    )


def tables(found: Any, share: float = 0.0) -> list[Table]:
    return [Table(str(place), table, EXAMPLES, share) for place, table in enumerate(found)]


def plain(found: list[Table]) -> list[float]:
    return [1 / len(found)] * len(found)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("line", [0.0, 1.0, 2.0])
def test_intervals_cover_the_truth_however_much_lines_differ(line: float, seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    covered = []
    for _ in range(WORLDS):
        found = tables(values(rng, line, seeds))
        mean = np.mean([table.values for table in found])
        covered.append(abs(mean) <= error_of(found, plain(found), DIFFERENCES).half_width)
    assert 0.93 <= np.mean(covered) <= 0.99


def test_they_would_not_if_data_sets_were_taken_for_independent() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(WORLDS):
        found = values(rng, 2.0, 3)
        apart = joined([variances(one, EXAMPLES, DIFFERENCES) for one in found]).of_average()
        covered.append(abs(found.mean()) <= apart.half_width())
    assert np.mean(covered) < 0.85


def test_the_standard_error_is_how_much_an_average_varies() -> None:
    rng = np.random.default_rng(1)
    means, squares = [], []
    for _ in range(WORLDS):
        found = tables(values(rng, 1.0, 3))
        means.append(np.mean([table.values for table in found]))
        squares.append(error_of(found, plain(found), DIFFERENCES).standard ** 2)
    assert 0.85 < np.mean(squares) / np.var(means) < 1.25


@pytest.mark.parametrize("share", [0.0, 0.4])
@pytest.mark.parametrize("ends", [DIFFERENCES, SCORES])
def test_of_one_data_set_it_is_the_data_sets_own(share: float, ends: tuple[float, float]) -> None:
    [found] = tables(values(np.random.default_rng(2), 1.0, 3, sets=1), share)
    own = variances(found.values, EXAMPLES, ends, share)
    error = error_of([found], [1.0], ends)
    assert error.half_width == pytest.approx(float(own.half_width()))
    assert error.standard == pytest.approx(float(own.total()) ** 0.5)


def test_what_moves_all_data_sets_does_not_count_between_two_groups_of_them() -> None:
    found = values(np.random.default_rng(3), 0.0, 3, sets=8)
    moved = found + np.array([-9.0, 2.0, 7.0])[:, None]
    weights = [1 / 3] * 3 + [-1 / 5] * 5
    still, also = (error_of(tables(one), weights, DIFFERENCES) for one in (found, moved))
    assert also.half_width == pytest.approx(still.half_width)
    assert also.standard == pytest.approx(still.standard)
    whole = error_of(tables(moved), plain(tables(moved)), DIFFERENCES)
    assert whole.half_width > 2 * also.half_width


@given(st.integers(0, 100), st.integers(1, 4), st.integers(2, 4))
def test_a_data_set_that_comes_twice_is_no_second_one(seed: int, sets: int, seeds: int) -> None:
    found = tables(values(np.random.default_rng(seed), 1.0, seeds, sets), share=0.2)
    once = error_of(found, plain(found), DIFFERENCES)
    twice = error_of([*found, *found], plain([*found, *found]), DIFFERENCES)
    assert twice.half_width == pytest.approx(once.half_width)
    assert twice.standard == pytest.approx(once.standard)


@given(st.integers(0, 100), st.integers(2, 5))
def test_a_data_set_of_no_weight_is_left_out(seed: int, sets: int) -> None:
    found = tables(values(np.random.default_rng(seed), 1.0, 3, sets))
    weights = [1.0, *[0.0] * (sets - 1)]
    assert error_of(found, weights, DIFFERENCES) == error_of(found[:1], [1.0], DIFFERENCES)
