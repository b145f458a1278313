from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.evaluate import jackknife
from coldfusion_shared.evaluate.jackknife import pseudo_values
from coldfusion_shared.evaluate.statistics import (
    DIFFERENCES,
    SCORES,
    Variances,
    average_error,
    dataset_error,
    joined,
    variances,
)
from coldfusion_shared.tasks.scores import (
    OF_CLASSES,
    OF_NUMBERS,
    accuracy,
    macro_f1,
    pearson,
    spearman,
)


def classes(rng: np.random.Generator, seeds: int, examples: int) -> tuple[Any, Any]:
    """Three classes, one of them rare, guessed mostly rightly, and alike by all seeds."""
    labels = rng.choice(3, examples, p=[0.5, 0.4, 0.1])
    noise = rng.normal(0, 0.5, examples) + rng.normal(0, 0.3, (seeds, examples))
    return labels, np.where(np.abs(noise) < 0.7, labels, (labels + 1 + (noise > 0)) % 3)


def numbers(rng: np.random.Generator, seeds: int, examples: int) -> tuple[Any, Any]:
    labels = np.round(rng.uniform(0, 5, examples), 1)
    shared = rng.normal(0, 1, examples)
    return labels, labels + shared + rng.normal(0, 0.5, (seeds, examples))


def made(metric: str, seeds: int, examples: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(7)
    if metric in OF_CLASSES:
        return *classes(rng, seeds, examples), OF_CLASSES[metric]
    return *numbers(rng, seeds, examples), OF_NUMBERS[metric]


METRICS = [*OF_CLASSES, *OF_NUMBERS]


def test_what_an_example_counts_for_an_accuracy_is_whether_it_is_right() -> None:
    labels, guesses, scorer = made("accuracy", 3, 50)
    values = pseudo_values(labels, guesses, scorer)
    np.testing.assert_allclose(np.sort(values), np.sort(100.0 * (guesses == labels)), atol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_the_part_of_the_examples_is_what_a_paired_bootstrap_says(metric: str) -> None:
    labels, guesses, scorer = made(metric, 3, 200)
    if metric in OF_NUMBERS:
        other = guesses + np.random.default_rng(8).normal(0, 0.8, guesses.shape)
    else:
        other = np.where(np.random.default_rng(8).random(guesses.shape) < 0.1, 0, guesses)
    differences = pseudo_values(labels, other, scorer) - pseudo_values(labels, guesses, scorer)
    found = variances(differences, 200, DIFFERENCES)
    rng = np.random.default_rng(9)
    resampled = []
    for _ in range(400):
        chosen = rng.integers(0, 200, 200)
        pairs = zip(guesses[:, chosen], other[:, chosen], strict=True)
        resampled.append(
            [scorer(labels[chosen], new) - scorer(labels[chosen], old) for old, new in pairs]
        )
    by_seed = np.array(resampled)
    mean = by_seed.mean(1)
    assert found.examples == pytest.approx(mean.var(), rel=0.2)
    rest = (by_seed - mean[:, None]).var(0).sum() / (2 * 3)
    assert found.rest == pytest.approx(rest, rel=0.2)


def test_the_parts_are_those_of_a_two_way_layout() -> None:
    # Rows 1, 3 and columns 0, 2, 4 on top of each other, and one value off by 6.
    table = np.array([[1.0, 3.0, 5.0], [3.0, 5.0, 13.0]])
    found = variances(table, 3, SCORES)
    # By hand: sums of squares 24, 36 + 1, and so on; see any textbook.
    grand = table.mean()
    rows = 3 * ((table.mean(1) - grand) ** 2).sum() / 1
    columns = 2 * ((table.mean(0) - grand) ** 2).sum() / 2
    total = ((table - grand) ** 2).sum()
    rest = (total - rows * 1 - columns * 2) / 2
    assert found.seeds * 6 == pytest.approx(rows)
    assert found.examples * 6 == pytest.approx(columns)
    assert found.rest * 6 == pytest.approx(rest)
    assert float(found.free_seeds) == 1 and float(found.free_examples) == 2


@pytest.mark.parametrize("metric", METRICS)
def test_groups_of_many_examples_tell_the_same_error(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, guesses, scorer = made(metric, 2, 800)
    _, grouped = dataset_error(labels, guesses, scorer)
    monkeypatch.setattr(jackknife, "MOST_GROUPS", 800)
    score, single = dataset_error(labels, guesses, scorer)
    assert grouped == pytest.approx(single, rel=0.15)
    assert score == pytest.approx(np.mean([scorer(labels, seed) for seed in guesses]))


def test_few_scores_are_computed_however_many_examples_there_are() -> None:
    asked = []

    def counted(labels: Any, guesses: Any) -> float:
        asked.append(len(labels))
        return accuracy(labels, guesses)

    labels, guesses, _ = made("accuracy", 3, 500)
    pseudo_values(labels, guesses, counted)
    # One without any of the nine kinds of examples, and one of all, for each seed.
    assert len(asked) <= 3 * (9 + 1)


def test_one_seed_and_one_example_have_no_error() -> None:
    labels, guesses, scorer = made("accuracy", 3, 50)
    score, error = dataset_error(labels, guesses[:1], scorer)
    assert error is None and score == pytest.approx(accuracy(labels, guesses[0]))
    assert dataset_error(labels[:1], guesses[:, :1], scorer)[1] is None


def test_tuples_are_taken_as_well_as_arrays() -> None:
    labels, guesses, scorer = made("Pearson", 3, 50)
    plain = dataset_error(
        tuple(labels.tolist()), [tuple(seed) for seed in guesses.tolist()], scorer
    )
    assert plain == dataset_error(labels, guesses, scorer)


def test_a_score_of_100_percent_is_not_without_error() -> None:
    labels = [0, 1] * 28
    score, error = dataset_error(labels, [labels, labels, labels], accuracy)
    # As if the 57th were wrong.
    assert score == 100 and error == pytest.approx(100 / 57)


@pytest.mark.parametrize("scorer", [macro_f1, pearson, spearman])
def test_guesses_that_never_vary_make_no_trouble(scorer: Any) -> None:
    score, error = dataset_error([0, 1, 1, 0], [[1, 1, 1, 1], [0, 0, 0, 0]], scorer)
    assert np.isfinite(score) and error is not None and np.isfinite(error)


def test_seeds_that_disagree_make_a_larger_error_than_seeds_that_agree() -> None:
    rng = np.random.default_rng(3)
    labels: Any = rng.integers(0, 2, 400)
    chances = np.array([[0.8, 0.8, 0.8], [0.7, 0.8, 0.9]])
    luck = rng.random(400)
    bases: list[Any] = [np.where(luck < chance[:, None], labels, 1 - labels) for chance in chances]
    agreeing, disagreeing = (dataset_error(labels, base, accuracy)[1] for base in bases)
    assert agreeing is not None and disagreeing is not None
    # Of seeds alone: 10 points' standard deviation over the root of three.
    assert agreeing < 2.5 and disagreeing > 5.5


@given(
    st.integers(2, 4).flatmap(
        lambda seeds: st.integers(2, 9).flatmap(
            lambda examples: st.lists(
                st.sampled_from([-100.0, 0.0, 100.0]),
                min_size=seeds * examples,
                max_size=seeds * examples,
            ).map(lambda flat: np.array(flat).reshape(seeds, examples))
        )
    ),
    st.randoms(use_true_random=False),
)
def test_order_does_not_matter_and_no_error_is_less_than_the_examples(table: Any, rng: Any) -> None:
    found = variances(table, table.shape[1], DIFFERENCES)
    seeds, examples = (rng.sample(range(size), size) for size in table.shape)
    mixed = variances(table[seeds][:, examples], table.shape[1], DIFFERENCES)
    assert mixed.total() == pytest.approx(found.total())
    assert mixed.half_width() == pytest.approx(found.half_width())
    negated = variances(-table, table.shape[1], DIFFERENCES)
    assert negated.total() == pytest.approx(found.total())
    assert found.total() >= found.examples * (1 - 1e-9)
    # Nothing is ever sure: not even a normal interval of the examples alone is wider.
    assert found.half_width() > 1.96 * np.sqrt(found.examples) * (1 - 1e-9)


def test_an_average_s_error_is_that_of_independent_scores() -> None:
    assert average_error([3.0, 4.0]) == pytest.approx(2.5)
    assert average_error([3.0, None]) is None
    assert average_error([]) is None


def test_ten_data_sets_of_three_seeds_have_about_twenty_degrees_of_freedom() -> None:
    draws = np.random.default_rng(1).exponential(1.0, (2000, 10))  # chi squared, two of each
    nothing = np.zeros_like(draws)
    two = nothing + 2
    parts = (draws, nothing + 1, *[nothing] * 4, two, two + 97)
    found = Variances(*parts).of_average()
    assert found.total().mean() == pytest.approx((draws.mean() + 1) / 10)
    assert 18 < np.median(found.free_seeds) < 24
    alone = Variances(*(part[:, :1] for part in parts))
    assert alone.of_average().free_seeds == pytest.approx(2)


def test_parts_that_do_not_vary_at_all_have_an_interval() -> None:
    nothing = np.zeros((3, 50))
    found = joined([variances(nothing, 50, DIFFERENCES)] * 4).of_average()
    assert np.isfinite(found.half_width()) and found.half_width() > 0
