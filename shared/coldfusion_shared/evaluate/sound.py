"""Whether what a file of scores says can be what an evaluation has come to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from coldfusion_shared.errors import UnknownName
from coldfusion_shared.evaluate.metrics import metrics_of, scorer_of
from coldfusion_shared.evaluate.statistics import dataset_error

if TYPE_CHECKING:
    from coldfusion_shared.evaluate.jackknife import Scorer
    from coldfusion_shared.evaluate.results import DatasetResult, Evaluated
    from coldfusion_shared.schemas.evaluations import SuiteDataset

    Numbers = Sequence[int | float]

# Of points; other processors sum up otherwise.
TOLERANCE = 1e-6


def check_sound(found: Evaluated) -> None:
    """
    Check names, lengths and numbers, and that the scores are those of the guesses.

    Raises:
        ValueError: something does not fit; what, in words that can end a sentence.
    """
    names = [entry.name for entry in found.suite.datasets]
    if [result.name for result in found.results] != names:
        raise ValueError("its results are not those of its suite's data sets")
    for entry, result in zip(found.suite.datasets, found.results, strict=True):
        try:
            _check_words(entry, result)
            _check_seeds(result, found.seeds)
            _check_pool(found, entry, result)
            _check_scores(entry, result)
        except (ValueError, UnknownName) as error:
            raise ValueError(f"{entry.name!r}: {str(error).rstrip('.')}") from None


def _check_words(entry: SuiteDataset, result: DatasetResult) -> None:
    for name in ("metric", "seen"):
        if getattr(result, name) != getattr(entry, name):
            raise ValueError(f"its {name} is not the suite's")
    if result.data_digest != entry.digest:
        raise ValueError("its data_digest is not the suite's")
    if entry.metric not in metrics_of(entry.task):
        raise ValueError(f"the metric {entry.metric!r} does not fit the task {entry.task}")


def _check_seeds(result: DatasetResult, seeds: tuple[int, ...]) -> None:
    if not seeds or len(set(seeds)) < len(seeds) or result.seeds != seeds:
        raise ValueError("its seeds are not those of the other data sets, each once")
    if len(result.by_seed) != len(seeds):
        raise ValueError(f"{len(seeds)} seeds have {len(result.by_seed)} scores")


def _check_pool(found: Evaluated, entry: SuiteDataset, result: DatasetResult) -> None:
    few = min(found.suite.few_shot, result.pool)
    wanted = few if found.protocol == "few-shot" else entry.train
    if not 1 <= result.train <= result.pool or result.train != wanted:
        raise ValueError(
            f"{found.protocol} does not draw {result.train} of {result.pool} training examples"
        )


def _check_scores(entry: SuiteDataset, result: DatasetResult) -> None:
    if not _finite([*result.by_seed, result.score, result.standard_error or 0.0]):
        raise ValueError("a score is no finite number")
    scorer = scorer_of(entry.task, entry.metric)
    error = None
    if scorer is None:
        if result.labels is not None or result.guesses is not None:
            raise ValueError(f"the task {entry.task} has no guesses")
    else:
        _check_guesses(entry, result)
        error = _check_by_seed(result, scorer)
    _check_same("score", result.score, sum(result.by_seed) / len(result.by_seed))
    _check_same("standard_error", result.standard_error, error)


def _check_guesses(entry: SuiteDataset, result: DatasetResult) -> None:
    if result.labels is None or result.guesses is None:
        raise ValueError("its labels or guesses are missing")
    if len(result.guesses) != len(result.seeds):
        raise ValueError(f"{len(result.seeds)} seeds have {len(result.guesses)} rows of guesses")
    for values in (result.labels, *result.guesses):
        if not values or len(values) != entry.test:
            raise ValueError(f"{entry.test} test examples have {len(values)} labels or guesses")
        if not _finite(values):
            raise ValueError("a label or a guess is no finite number")
        if entry.task == "classification" and not _indices(values, entry.labels):
            raise ValueError(f"a label or a guess is none of the {entry.labels} labels")


def _check_by_seed(result: DatasetResult, scorer: Scorer) -> float | None:
    """Compare each seed's score with that of its guesses; return the standard error of them."""
    import numpy as np

    assert result.labels and result.guesses, "looked at before"
    labels = np.asarray(result.labels)
    for seed, said, guesses in zip(result.seeds, result.by_seed, result.guesses, strict=True):
        _check_same(f"score of seed {seed}", said, scorer(labels, np.asarray(guesses)))
    return dataset_error(result.labels, result.guesses, scorer, result.share)[1]


def _check_same(name: str, said: float | None, computed: float | None) -> None:
    if said is None or computed is None:
        same = said is computed
    else:
        same = math.isclose(said, computed, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    if not same:
        raise ValueError(f"its {name} is {said}, and by its guesses {computed}")


def _finite(values: Numbers) -> bool:
    try:
        return all(map(math.isfinite, values))
    except OverflowError:
        return False


def _indices(values: Numbers, labels: int) -> bool:
    return all(isinstance(value, int) and 0 <= value < labels for value in values)
