"""Limits that follow from what honest contributions are like, and how sure one can be of them."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.honest import Case, as_parameters, most_rate, suggested
from benchmarks.honest_runs import ROUND, ROUNDS, choices
from benchmarks.kept import Kept, key_of
from benchmarks.quantities import LEAST, MOST, QUANTITIES
from benchmarks.screened import Seen
from coldfusion_shared.screening import check_parameters


def case(**values: float) -> Case:
    seen = Seen("0-0-0", "somebody", "full", 0, None, ())
    named = {name.replace("__", "."): value for name, value in values.items()}
    return Case(seen, first=True, values=named, others=())


@pytest.mark.parametrize("one", QUANTITIES, ids=lambda one: one.name)
def test_a_limit_lies_beyond_the_worst_honest_one(one: Any) -> None:
    worst = 0.02 if one.side == MOST else 0.999
    assert not one.is_beyond(worst, one.margin(worst))
    assert one.is_beyond(1e9 if one.side == MOST else -1e9, one.margin(worst))


@pytest.mark.parametrize("one", QUANTITIES, ids=lambda one: one.name)
def test_every_quantity_has_a_default_in_force(one: Any) -> None:
    assert one.limit == one.limit
    assert one.side in (MOST, LEAST)


def test_the_worst_is_the_one_nearest_to_the_wrong_side() -> None:
    limits = suggested(
        [
            case(norm__factor=2.0, direction__cosine=0.1),
            case(norm__factor=4.0, direction__cosine=-0.02),
            case(norm__factor=3.0),
        ]
    )
    assert limits == {
        "norm.factor": pytest.approx(6.0),
        "direction.cosine": pytest.approx(-0.045),
    }


def test_limits_are_parameters_that_a_policy_takes() -> None:
    given = as_parameters({"norm.factor": 6.0, "norm.deviations": 2.0, "direction.cosine": -0.07})
    assert given == {
        "norm": {"factor": 6.0, "deviations": 2.0},
        "direction": {"cosine": -0.07},
    }
    check_parameters(given)


@pytest.mark.parametrize(
    ("count", "of", "expected"),
    # Of none in n, 1 - 0.05 ** (1 / n); the others are Clopper's and Pearson's.
    [(0, 58, 0.0503), (0, 120, 0.0247), (0, 300, 0.00994), (1, 120, 0.0389), (2, 2, 1.0)],
)
def test_how_large_a_rate_may_be_that_so_few_were_seen_of(
    count: int, of: int, expected: float
) -> None:
    assert most_rate(count, of) == pytest.approx(expected, rel=0.01)


def test_choices_of_a_longer_run_begin_with_those_of_a_shorter_one() -> None:
    names = ["films", "books", "songs"]
    few, many = (choices(names, count, seed=13) for count in (ROUND, 2 * ROUND * ROUNDS))
    assert many[: len(few)] == few
    assert len({one.key() for one in many}) == len(many)


def test_what_a_choice_has_by_default_is_not_in_its_key() -> None:
    one = choices(["films"], 1, seed=13)[0]
    assert "max_steps" not in one.key()
    assert f'"lr": {one.settings.learning_rate}' in one.key()


def test_results_are_kept_and_the_last_one_counts(tmp_path: Any) -> None:
    kept = Kept(tmp_path / "kept.jsonl")
    kept.put(key_of("a", 1), {"n": 1})
    kept.put(key_of("b"), {"n": 2})
    kept.put(key_of("a", 1), {"n": 3})
    again = Kept(kept.file)
    assert again.get(key_of("a", 1)) == {"n": 3}
    assert again.get(key_of("c")) is None
    assert [one["n"] for one in again.values()] == [3, 2]
