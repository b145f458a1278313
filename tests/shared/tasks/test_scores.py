"""Our scores beside scikit-learn's and SciPy's."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from coldfusion_shared.tasks.scores import OF_CLASSES, OF_NUMBERS

CLASSES: dict[str, Any] = {
    "accuracy": accuracy_score,
    "macro F1": lambda labels, guesses: f1_score(labels, guesses, average="macro", zero_division=0),
    "Matthews": matthews_corrcoef,
}
NUMBERS: dict[str, Any] = {
    "Pearson": lambda labels, guesses: pearsonr(labels, guesses).statistic,
    "Spearman": lambda labels, guesses: spearmanr(labels, guesses).statistic,
}


def test_each_score_has_an_oracle() -> None:
    assert OF_CLASSES.keys() == CLASSES.keys()
    assert OF_NUMBERS.keys() == NUMBERS.keys()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40))
def test_scores_of_classes_are_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    labels, guesses = zip(*pairs, strict=True)
    for name, score in OF_CLASSES.items():
        with warnings.catch_warnings():
            # Of a single label.
            warnings.simplefilter("ignore")
            expected = 100 * CLASSES[name](labels, guesses)
        assert score(labels, guesses) == pytest.approx(expected, abs=1e-9)
        assert score(np.array(labels), np.array(guesses)) == score(labels, guesses)


values = st.integers(-1000, 1000).map(lambda number: number / 8)


@given(st.lists(st.tuples(values, values), min_size=2, max_size=40), st.floats(1e-9, 1e9))
def test_correlations_are_scipys(pairs: list[tuple[float, float]], scale: float) -> None:
    labels, guesses = (np.array(side) for side in zip(*pairs, strict=True))
    varies = np.ptp(labels) > 0 and np.ptp(guesses) > 0
    for name, score in OF_NUMBERS.items():
        expected = 100 * NUMBERS[name](labels, guesses) if varies else 0.0
        assert score(labels, scale * guesses) == pytest.approx(expected, abs=1e-6)


def test_numbers_of_any_size_correlate() -> None:
    for scale in (1e-25, 1e200):
        for score in OF_NUMBERS.values():
            assert score([1.0, 2.0, 4.0], [scale, 2 * scale, 4 * scale]) == pytest.approx(100)
