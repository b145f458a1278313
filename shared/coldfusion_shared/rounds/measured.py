"""
What two reports of one evaluator tell of a difference, and how much of it is noise.

The variance of a data set's difference has two parts, which add up:

* of the seeds, pooled: the mean over data sets. It is never more than the base's own spread makes
  it, var(base) / seeds for each of the two scores, since a candidate that collapses at one seed
  would excuse its loss with its own spread. Where both were measured with the same seeds, a seed
  drew the same training examples for both, and the differences seed by seed may tell that it is
  less: var(differences) / seeds.
* of the test examples: what is left of the squared standard errors without the seeds' part. Both
  were scored on the same examples, and what is hard for one is mostly hard for the other. Taken as
  independent, as here, their errors come out larger than the difference's is: a loss is called one
  later than it might be, never sooner. An accuracy over n examples has no larger error than
  50 / sqrt(n) points; what is told beyond that does not count. Where an evaluator reports negative
  flips of a data set that is scored by accuracy, the difference's own error is known instead
  (McNemar 1947): with a share n of right answers lost and p = d + n gained, examples differ with
  variance n + p - d^2. As in the reports' own errors, one more example is reckoned with that nobody
  has seen, at its worst.

Data sets are independent of each other. What reports do not tell adds nothing, so that the error is
the part of it that was measured; where they tell nothing at all it is not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import fsum, inf, isfinite
from statistics import fmean, variance
from typing import Protocol

from coldfusion_shared.schemas.evaluations import Suite, SuiteDataset


class Report(Protocol):
    """Scores as an evaluator reported them: an `EvaluationReport`, or an `Evaluation`."""

    @property
    def scores(self) -> Mapping[str, float]:
        """In percent, by data set."""

    @property
    def standard_errors(self) -> Mapping[str, float]:
        """Of the scores, in points, of seeds and test examples together."""

    @property
    def by_seed(self) -> Mapping[str, Sequence[float]]:
        """The score of each seed."""

    @property
    def seeds(self) -> Sequence[int]:
        """In the order of those."""

    @property
    def negative_flips(self) -> Mapping[str, float]:
        """Percent of test examples that the base had right and the candidate has wrong."""


def absent(report: Report, names: Iterable[str]) -> list[str]:
    """Return those data sets of `names` that the report has no score of, a number at least."""
    return [name for name in names if not isfinite(report.scores.get(name, float("nan")))]


def mean(report: Report, names: Iterable[str]) -> float:
    """Return the plain mean of the scores, in percent; all are there."""
    return fmean(report.scores[name] for name in names)


def mean_flips(report: Report, names: Iterable[str]) -> float | None:
    """Return the mean percentage of negative flips over those of `names` that have them."""
    found = [report.negative_flips[name] for name in names if name in report.negative_flips]
    return fmean(found) if found else None


def with_flips(suite: Suite) -> list[str]:
    """Return the data sets whose examples are plainly right or wrong."""
    return [entry.name for entry in suite.datasets if entry.task == "classification"]


def error_of_mean(variances: Sequence[float | None]) -> float | None:
    """Return the standard error of the mean of data sets' differences, in points."""
    known = [found for found in variances if found is not None]
    return fsum(known) ** 0.5 / len(variances) if known else None


def variances_of_differences(
    suite: Suite, base: Report, candidate: Report
) -> dict[str, float | None]:
    """Return the variance of each data set's difference, in points squared; null: not known."""
    of_seeds = _of_seeds([entry.name for entry in suite.datasets], base, candidate)
    return {
        entry.name: _total([of_seeds, _of_examples(entry, base, candidate)])
        for entry in suite.datasets
    }


def _total(parts: Iterable[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return fsum(known) if known else None


def _of_seeds(names: Sequence[str], base: Report, candidate: Report) -> float | None:
    """Return the seeds' part of any one data set's difference; null: the base had one seed."""
    apart, paired = [], []
    for name in names:
        before, after = _seeds(name, base), _seeds(name, candidate)
        if len(before) < 2:
            continue
        apart.append(variance(before.values()) * (1 / len(before) + 1 / (len(after) or 1)))
        if before.keys() == after.keys():
            paired.append(variance(after[seed] - before[seed] for seed in before) / len(before))
    if not apart:
        return None
    # Some of the differences alone would be a choice among them.
    return min(fmean(apart), fmean(paired)) if len(paired) == len(apart) else fmean(apart)


def _of_examples(entry: SuiteDataset, base: Report, candidate: Report) -> float | None:
    apart = _total(_left(entry, report) for report in (base, candidate))
    paired = _paired(entry, base, candidate)
    if apart is None or paired is None:
        return paired if apart is None else apart
    return min(apart, paired)


def _left(entry: SuiteDataset, report: Report) -> float | None:
    """Return a score's variance less what the seeds make of it; null: its error is not told."""
    if entry.name not in report.standard_errors:
        return None
    seeds = _seeds(entry.name, report)
    of_seeds = variance(seeds.values()) / len(seeds) if len(seeds) > 1 else 0.0
    left = max(0.0, report.standard_errors[entry.name] ** 2 - of_seeds)
    return min(left, _most(entry))


def _most(entry: SuiteDataset) -> float:
    """Return the largest variance that test examples can give a score, in points squared."""
    if not (_is_accuracy(entry) and entry.test):
        return inf
    return 50.0**2 / entry.test + (100.0 / (entry.test + 1)) ** 2


def _is_accuracy(entry: SuiteDataset) -> bool:
    return entry.task == "classification" and entry.metric == "accuracy"


def _paired(entry: SuiteDataset, base: Report, candidate: Report) -> float | None:
    flips = candidate.negative_flips.get(entry.name)
    if flips is None or not _is_accuracy(entry) or not entry.test:
        return None
    lost = flips / 100
    difference = (candidate.scores[entry.name] - base.scores[entry.name]) / 100
    differing = max(0.0, 2 * lost + difference - difference**2)
    unseen = ((1 + abs(difference)) / (entry.test + 1)) ** 2
    return 100.0**2 * (differing / entry.test + unseen)


def _seeds(name: str, report: Report) -> dict[int, float]:
    return dict(zip(report.seeds, report.by_seed.get(name, ()), strict=False))
