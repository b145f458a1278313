"""Is a base better than another? By how much, and could it be chance?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from coldfusion_shared.evaluate.alike import check_alike
from coldfusion_shared.evaluate.jackknife import pseudo_values
from coldfusion_shared.evaluate.metrics import scorer_of
from coldfusion_shared.evaluate.results import DatasetResult, Evaluated
from coldfusion_shared.evaluate.statistics import (
    CONFIDENCE,
    DIFFERENCES,
    Variances,
    joined,
    variances,
)
from coldfusion_shared.schemas.evaluations import SuiteDataset

Verdict = Literal["better", "worse", "no difference", "not known"]


@dataclass(frozen=True)
class Difference:
    """
    Two scores, of one data set or of several on average, and what lies between them.

    Attributes:
        before: in percent.
        after: in percent.
        standard_error: of the difference, in points; null where it is not known.
        low: where the interval of `CONFIDENCE` begins, in points; null likewise.
        high: where it ends.
    """

    before: float
    after: float
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def points(self) -> float:
        """By how much `after` is higher, in points."""
        return self.after - self.before

    @property
    def verdict(self) -> Verdict:
        """What can be said of `after`: a difference is one if zero is not in the interval."""
        if self.low is None or self.high is None:
            return "not known"
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no difference"


@dataclass(frozen=True)
class Flips:
    """
    How many test examples turned, in percent of them, the mean over the seeds.

    Attributes:
        negative: right before and wrong after.
        positive: wrong before and right after.
    """

    negative: float
    positive: float


@dataclass(frozen=True)
class DatasetDifference:
    """
    Two bases on one data set.

    Attributes:
        name: of the data set in its suite.
        metric: what the scores are.
        seen: whether contributors may have trained on it; null: the suite does not say.
        scores: and their difference.
        flips: null where no example is plainly right or wrong.
    """

    name: str
    metric: str
    seen: bool | None
    scores: Difference
    flips: Flips | None


@dataclass(frozen=True)
class Comparison:
    """
    Two bases on a suite.

    Attributes:
        suite: its name.
        protocol: by which both were measured.
        seeds: with which both were measured.
        datasets: in the suite's order.
        average: over all data sets.
        seen: over those that contributors may have trained on; null: the suite has none.
        unseen: over those that nobody trained on; null likewise.
        flips: the mean over the data sets that have them; null: none has.
        unknown: why it is not known which is better; null: it is.
    """

    suite: str
    protocol: str
    seeds: tuple[int, ...]
    datasets: tuple[DatasetDifference, ...]
    average: Difference
    seen: Difference | None
    unseen: Difference | None
    flips: Flips | None
    unknown: str | None

    @property
    def verdict(self) -> Verdict:
        """What can be said of the second base, by the average over all data sets."""
        return self.average.verdict

    @property
    def negative_flips(self) -> dict[str, float]:
        """Percent of test examples that turned from right to wrong, by data set that has them."""
        return {one.name: one.flips.negative for one in self.datasets if one.flips is not None}

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it: scores and flips in percent, differences in points."""
        return {
            "suite": self.suite,
            "protocol": self.protocol,
            "seeds": list(self.seeds),
            "verdict": self.verdict,
            "unknown": self.unknown,
            "confidence": CONFIDENCE,
            "average": {**_numbers(self.average), **_flipped(self.flips)},
            "seen": self.seen and _numbers(self.seen),
            "unseen": self.unseen and _numbers(self.unseen),
            "datasets": [
                {
                    "name": dataset.name,
                    "metric": dataset.metric,
                    "seen": dataset.seen,
                    **_numbers(dataset.scores),
                    **_flipped(dataset.flips),
                }
                for dataset in self.datasets
            ],
        }


_Measured = tuple[DatasetDifference, Variances | None]


def compare(before: Evaluated, after: Evaluated) -> Comparison:
    """
    Compare two bases that were measured alike.

    Differences are taken test example by test example and seed by seed; how their errors come
    about is told in `statistics`. From one seed nothing is said of which is better.

    Raises:
        SuiteChanged: they were measured on different data or by different settings.
        InvalidRequest: by different protocols or seeds.
    """
    check_alike(before, after)
    triples = zip(after.suite.datasets, before.results, after.results, strict=True)
    measured = [_compared(*triple) for triple in triples]
    every, _ = zip(*measured, strict=True)
    flips = [dataset.flips for dataset in every if dataset.flips is not None]
    return Comparison(
        suite=after.suite.name,
        protocol=after.protocol,
        seeds=after.seeds,
        datasets=every,
        average=_average(measured),
        seen=_average_where(measured, seen=True),
        unseen=_average_where(measured, seen=False),
        flips=_mean(flips) if flips else None,
        unknown=_unknown(after.seeds, [data.name for data, found in measured if found is None]),
    )


def _compared(entry: SuiteDataset, before: DatasetResult, after: DatasetResult) -> _Measured:
    variance = _variances(entry, before, after)
    scores = _difference(before.score, after.score, variance)
    flips = _flips(before, after) if entry.task == "classification" else None
    return DatasetDifference(after.name, after.metric, after.seen, scores, flips), variance


def _variances(
    entry: SuiteDataset, before: DatasetResult, after: DatasetResult
) -> Variances | None:
    """Return those of the difference; null where they cannot be told."""
    scorer = scorer_of(entry.task, entry.metric)
    if scorer is None or not (after.labels and after.guesses and before.guesses):
        return None
    if min(len(after.seeds), len(after.labels)) < 2:
        return None
    differences = pseudo_values(after.labels, after.guesses, scorer)
    differences -= pseudo_values(after.labels, before.guesses, scorer)
    return variances(differences, len(after.labels), DIFFERENCES, after.share)


def _difference(before: float, after: float, variance: Variances | None) -> Difference:
    if variance is None:
        return Difference(before, after)
    points, width = after - before, float(variance.half_width())
    error = float(variance.total()) ** 0.5
    return Difference(before, after, error, points - width, points + width)


def _average_where(measured: Sequence[_Measured], *, seen: bool) -> Difference | None:
    chosen = [pair for pair in measured if pair[0].seen is seen]
    return _average(chosen) if chosen else None


def _average(measured: Sequence[_Measured]) -> Difference:
    before = sum(data.scores.before for data, _ in measured) / len(measured)
    after = sum(data.scores.after for data, _ in measured) / len(measured)
    known = [variance for _, variance in measured if variance is not None]
    together = joined(known).of_average() if len(known) == len(measured) else None
    return _difference(before, after, together)


def _flips(before: DatasetResult, after: DatasetResult) -> Flips | None:
    if not (after.labels and after.guesses and before.guesses):
        return None
    import numpy as np

    labels = np.asarray(after.labels)
    was, now = (np.asarray(side.guesses) == labels for side in (before, after))
    return Flips(100.0 * float((was & ~now).mean()), 100.0 * float((now & ~was).mean()))


def _mean(flips: Sequence[Flips]) -> Flips:
    return Flips(
        sum(one.negative for one in flips) / len(flips),
        sum(one.positive for one in flips) / len(flips),
    )


def _unknown(seeds: Sequence[int], names: Sequence[str]) -> str | None:
    if len(seeds) == 1:
        return (
            "One seed does not tell how much the choice of training examples moves the scores: "
            "measure both bases with more, as --seeds 3."
        )
    if not names:
        return None
    return (
        f"The errors of {', '.join(map(repr, names))} are not known, as their test examples are "
        "not scored one by one, or are fewer than two."
    )


def _numbers(found: Difference) -> dict[str, Any]:
    interval = None if found.low is None else [found.low, found.high]
    return {
        "before": found.before,
        "after": found.after,
        "difference": found.points,
        "standard_error": found.standard_error,
        "interval": interval,
        "verdict": found.verdict,
    }


def _flipped(flips: Flips | None) -> dict[str, Any]:
    return {
        "negative_flips": None if flips is None else flips.negative,
        "positive_flips": None if flips is None else flips.positive,
    }
