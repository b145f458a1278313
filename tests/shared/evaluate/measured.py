"""Evaluations made up for tests: guesses of a coin that is right so often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coldfusion_shared.evaluate.drawing import pool_share
from coldfusion_shared.evaluate.metrics import scorer_of
from coldfusion_shared.evaluate.results import DatasetResult, Evaluated
from coldfusion_shared.evaluate.statistics import dataset_error
from coldfusion_shared.schemas.evaluations import ProtocolName, Suite, SuiteDataset

Row = Sequence[int | float]


def entry(name: str, **fields: Any) -> SuiteDataset:
    given: dict[str, Any] = {
        "task": "classification",
        "metric": "accuracy",
        "labels": 2,
        "train": 100,
        "validation": 50,
        "test": 200,
        "digest": "0" * 64,
    }
    return SuiteDataset(name=name, **{**given, **fields})


# Examples that there are for each one that a seed trains on.
PLENTY = 10


def result(
    found: SuiteDataset, labels: Row, guesses: Sequence[Row], pool: int | None = None
) -> DatasetResult:
    scorer = scorer_of(found.task, found.metric)
    assert scorer is not None
    pool = pool or PLENTY * found.train
    score, error = dataset_error(labels, guesses, scorer, pool_share(found.train, pool))
    return DatasetResult(
        name=found.name,
        metric=found.metric,
        seen=found.seen,
        seeds=tuple(range(len(guesses))),
        by_seed=tuple(scorer(labels, seed) for seed in guesses),
        score=score,
        standard_error=error,
        labels=tuple(labels),
        guesses=tuple(map(tuple, guesses)),
        train=found.train,
        pool=pool,
        data_digest=found.digest,
    )


def unscored(found: SuiteDataset, by_seed: Sequence[float]) -> DatasetResult:
    """A task whose examples are not scored one by one."""
    return DatasetResult(
        name=found.name,
        metric=found.metric,
        seen=found.seen,
        seeds=tuple(range(len(by_seed))),
        by_seed=tuple(by_seed),
        score=sum(by_seed) / len(by_seed),
        standard_error=None,
        labels=None,
        guesses=None,
        train=found.train,
        pool=PLENTY * found.train,
        data_digest=found.digest,
    )


def evaluated(
    datasets: Sequence[SuiteDataset],
    results: Sequence[DatasetResult],
    *,
    name: str = "made-up",
    max_length: int = 64,
    protocol: ProtocolName = "frozen",
) -> Evaluated:
    suite = Suite(name=name, datasets=list(datasets), max_length=max_length, seed=13, few_shot=100)
    return Evaluated(suite, protocol, tuple(results))


def coins(
    accuracy: float | Sequence[float],
    datasets: Sequence[SuiteDataset],
    *,
    seeds: int = 3,
    examples: int = 200,
    pool: int | None = None,
    **fields: Any,
) -> Evaluated:
    """A base that is right by chance; the same examples are hard for each such base."""
    chances = [accuracy] * len(datasets) if isinstance(accuracy, float) else accuracy
    rows = []
    for place, (found, chance) in enumerate(zip(datasets, chances, strict=True)):
        rng = np.random.default_rng(place)
        labels = rng.integers(0, 2, examples)
        luck = rng.random(examples) + rng.normal(0, 0.05, (seeds, examples))
        guesses = np.where(luck < chance, labels, 1 - labels)
        rows.append(result(found, labels.tolist(), guesses.tolist(), pool))
    return evaluated(datasets, rows, **fields)
