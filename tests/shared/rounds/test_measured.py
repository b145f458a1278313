"""How much of a measured difference is noise."""

from __future__ import annotations

from random import Random
from statistics import fmean, variance

import pytest

from coldfusion_shared.rounds.measured import error_of_mean, mean, variances_of_differences
from coldfusion_shared.schemas.evaluations import EvaluationReport, Suite
from tests.shared.rounds.reports import report, suite

SUITE = suite("a")


def _variance(
    base: EvaluationReport, candidate: EvaluationReport, of: Suite = SUITE
) -> float | None:
    return variances_of_differences(of, base, candidate)["a"]


def _report(
    found: list[float], error: float | None, seeds: list[int] | None = None
) -> EvaluationReport:
    errors = {} if error is None else {"a": error}
    return report({"a": fmean(found)}, errors, {"a": found}, seeds=seeds)


def test_nothing_told_is_not_known() -> None:
    assert _variance(report({"a": 80}), report({"a": 81})) is None
    assert error_of_mean([None, None]) is None


def test_with_the_same_seeds_only_their_differences_vary() -> None:
    base, candidate = _report([70, 80, 90], None), _report([71, 82, 91], None)
    found = _variance(base, candidate)
    assert found == pytest.approx(variance([1, 2, 1]) / 3)


def test_seeds_are_matched_by_their_numbers() -> None:
    base = _report([70, 80, 90], None)
    candidate = _report([91, 82, 71], None, seeds=[2, 1, 0])
    found = _variance(base, candidate)
    assert found == pytest.approx(variance([1, 2, 1]) / 3)


def test_with_other_seeds_both_vary_as_the_base_does() -> None:
    base, candidate = _report([70, 80], None), _report([71, 82, 191 / 2], None)
    expected = variance([70, 80]) * (1 / 2 + 1 / 3)
    assert _variance(base, candidate) == pytest.approx(expected)
    # Of a base with one seed nothing is known, whatever the candidate does.
    assert _variance(_report([75], None), candidate) is None


def test_a_candidate_that_collapses_at_a_seed_is_not_noisier_than_its_base() -> None:
    base, candidate = _report([89, 91], None), _report([10, 91], None)
    assert _variance(base, candidate) == pytest.approx(variance([89, 91]))


def test_the_spread_over_seeds_is_that_of_all_data_sets() -> None:
    found = {"a": [70.0, 80.0], "b": [60.0, 60.0]}
    base = report({"a": 75, "b": 60}, {}, found)
    candidate = report({"a": 75, "b": 60}, {}, found, seeds=[5, 6])
    expected = variance([70, 80]) / 2
    told = variances_of_differences(suite("a", "b"), base, candidate)
    assert told == {"a": pytest.approx(expected), "b": pytest.approx(expected)}


def test_an_error_is_no_larger_than_its_test_examples_can_make_it() -> None:
    claimed = report({"a": 80}, {"a": 100.0})
    most = 50**2 / 400 + (100 / 401) ** 2
    assert _variance(claimed, claimed) == pytest.approx(2 * most)
    # Of other metrics nobody knows that.
    other = suite("a", metric="macro F1")
    assert _variance(claimed, claimed, other) == pytest.approx(2 * 100**2)


def test_test_examples_make_what_the_seeds_do_not() -> None:
    of_seeds = variance([70, 80, 90]) / 3
    base = _report([70, 80, 90], (of_seeds + 4) ** 0.5)
    candidate = _report([70, 80, 90], (of_seeds + 5) ** 0.5)
    assert _variance(base, candidate) == pytest.approx(4 + 5)


def test_errors_without_seeds_add_up() -> None:
    base, candidate = report({"a": 80}, {"a": 1.5}), report({"a": 81}, {"a": 2.0})
    assert _variance(base, candidate) == pytest.approx(6.25)
    # One of the two is better than nothing.
    assert _variance(base, report({"a": 81})) == pytest.approx(2.25)


def test_negative_flips_tell_that_both_had_the_same_examples() -> None:
    base = report({"a": 80}, {"a": 2.0})
    candidate = report({"a": 81}, {"a": 2.0}, flips={"a": 2.0})
    # 2 percent lost and 3 gained, of 400 examples.
    differing, unseen = 0.02 + 0.03 - 0.01**2, (1.01 / 401) ** 2
    expected = 100**2 * (differing / 400 + unseen)
    assert _variance(base, candidate) == pytest.approx(expected)
    # Nothing is known of what the flips of another metric weigh.
    other = suite("a", metric="macro-f1")
    assert _variance(base, candidate, other) == pytest.approx(8)


def test_flips_that_agree_with_the_scores_by_chance_only_do_not_lower_it_below_zero() -> None:
    base, candidate = report({"a": 90}), report({"a": 80}, flips={"a": 1.0})
    found = _variance(base, candidate)
    assert found is not None
    assert found > 0


def test_the_mean_of_independent_data_sets() -> None:
    assert error_of_mean([9.0, 16.0]) == pytest.approx(2.5)
    # What is not known adds nothing, and counts as a data set.
    assert error_of_mean([9.0, None, 16.0]) == pytest.approx(5 / 3)


def test_the_error_covers_the_noise_of_repeated_measurements() -> None:
    random = Random(3)
    of = suite("a", "b", "c")
    inside = 0
    for _ in range(300):
        columns: list[dict[str, list[float]]] = [{}, {}]
        for entry in of.datasets:
            shared = [random.gauss(0, 3) for _ in range(3)]
            hard = random.gauss(0, 1.5)
            for column in columns:
                column[entry.name] = [70 + hard + random.gauss(0, 0.8) + one for one in shared]
        pair = [
            report(
                {name: fmean(seeds) for name, seeds in column.items()},
                {name: (variance(seeds) / 3 + 1.5**2) ** 0.5 for name, seeds in column.items()},
                column,
            )
            for column in columns
        ]
        error = error_of_mean([*variances_of_differences(of, *pair).values()])
        assert error is not None
        inside += abs(mean(pair[1], columns[1]) - mean(pair[0], columns[0])) <= error
    # One standard error covers 68 percent; taken as independent, test examples make it more.
    assert inside > 0.75 * 300
