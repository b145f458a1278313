"""
How far chance may have moved an average over data sets, where a seed is a line.

`coldfusion_shared.evaluate.statistics` takes data sets for independent of each other. That is so
where a seed only draws the examples that a score is learnt from. Here a seed has bases of its own,
and one base moves its scores of all data sets together. The value of seed s on data set k and test
example e is

    mean_k + line_s + own_sk + example_ke + rest_ske

and of the average over S seeds, with weights w_k, the variance is

    (v_line + sum w_k^2 (v_own + v_rest / n_k)) / S + sum w_k^2 v_example / n_k

Each seed has an average of its own, and what these differ by is the first part, rest and all,
however the data sets hang together. What the test examples make is the same for all seeds, so it
is not in there, and is told by the tables of single data sets. So an interval's half width is

    sqrt(t(S - 1)^2 * MS_lines / S + t(f_examples)^2 * sum w_k^2 (MS_examples - MS_rest) / (S n_k))

with MS_lines the variance of the seeds' averages. A t-test of one average for each cluster holds
for few clusters and any dependence in them (Ibragimov and Müller 2010); that it still holds with
the second part is Banerjee's inequality, as there. All else is as there: the pool's part, the
unseen example, and that seeds vary no less than single examples imply.

A data set that several folds score comes several times: its test examples are the same each time.
So its tables are added up before anything else, seed by seed and example by example.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coldfusion_shared.evaluate.jackknife import pseudo_values
from coldfusion_shared.evaluate.metrics import scorer_of
from coldfusion_shared.evaluate.results import DatasetResult, Evaluated
from coldfusion_shared.evaluate.statistics import CONFIDENCE, Variances, joined, variances
from coldfusion_shared.schemas.evaluations import SuiteDataset
from experiments.records import Group

if TYPE_CHECKING:
    from coldfusion_shared.evaluate.statistics import Floats

GROUPS: Mapping[Group, bool | None] = {"all": None, "seen": True, "unseen": False}


@dataclass(frozen=True)
class Table:
    """
    What a base, or the difference of two, is on one data set.

    Attributes:
        name: of the data set.
        values: (seeds, groups of test examples), in percent or points.
        examples: how many there are in the groups together.
        share: `drawing.pool_share`.
    """

    name: str
    values: Floats
    examples: int
    share: float


@dataclass(frozen=True)
class Error:
    """
    Of an average, in points.

    Attributes:
        standard: the standard error.
        half_width: how far the interval of 95% reaches to either side.
    """

    standard: float
    half_width: float


def tables_of(found: Evaluated) -> list[Table] | None:
    """Return a table for each result; null where one seed or one example does not tell errors."""
    pairs = list(zip(found.suite.datasets, found.results, strict=True))
    if any(min(len(result.seeds), len(result.labels or ())) < 2 for _, result in pairs):
        return None
    return [_table(entry, result) for entry, result in pairs]


def _table(entry: SuiteDataset, result: DatasetResult) -> Table:
    scorer = scorer_of(entry.task, entry.metric)
    assert scorer is not None and result.labels and result.guesses, "texts are classified here"
    values = pseudo_values(result.labels, result.guesses, scorer)
    return Table(result.name, values, len(result.labels), result.share)


def differences(before: Sequence[Table], after: Sequence[Table]) -> list[Table]:
    """Return what the second ones are above the first, seed by seed and example by example."""
    pairs = zip(before, after, strict=True)
    return [replace(now, values=now.values - was.values) for was, now in pairs]


def weights_of(found: Evaluated) -> dict[Group, list[float]]:
    """Return what each result counts in the plain mean of each group that there is."""
    weights: dict[Group, list[float]] = {}
    for group, seen in GROUPS.items():
        chosen = [seen is None or one.seen is seen for one in found.results]
        if any(chosen):
            weights[group] = [one / sum(chosen) for one in chosen]
    return weights


def weighted(values: Sequence[float], weights: Sequence[float]) -> float:
    """Return the weighted sum of values."""
    return sum(value * weight for value, weight in zip(values, weights, strict=True))


def error_of(tables: Sequence[Table], weights: Sequence[float], ends: tuple[float, float]) -> Error:
    """
    Return the error of a weighted sum of tables' means; the formula is above.

    Args:
        tables: with the same seeds in all.
        weights: of each; 0 leaves it out. They may be below 0 where `ends` lie about 0.
        ends: what an example's value can be at least and at most.
    """
    import numpy as np
    from scipy.stats import t

    parts, means = _by_dataset(tables, weights, ends)
    apart, seeds = joined(parts).of_average(), len(means[0])
    by_seed = np.mean(means, axis=0)
    together = replace(apart, seeds=by_seed.var(ddof=1) / seeds)
    tail = (1 + CONFIDENCE) / 2
    line, few, many = (
        float(t.ppf(tail, free)) ** 2 for free in (seeds - 1, apart.free_seeds, apart.free_examples)
    )
    # Only the seeds' part is another: the pool's has as many degrees of freedom as it had.
    most = max(line * float(together.seeds), many * float(apart.rest))
    had = max(few * float(apart.seeds), many * float(apart.rest))
    square = float(apart.half_width()) ** 2 + most - had
    return Error(float(together.total()) ** 0.5, square**0.5)


def _by_dataset(
    tables: Sequence[Table], weights: Sequence[float], ends: tuple[float, float]
) -> tuple[list[Variances], list[Floats]]:
    """Return, by data set, variances and seeds' means, whose plain average is the weighted sum."""
    import numpy as np

    pairs = [pair for pair in zip(tables, weights, strict=True) if pair[1]]
    names = dict.fromkeys(table.name for table, _ in pairs)
    parts, means = [], []
    for name in names:
        found = [(table, weight * len(names)) for table, weight in pairs if table.name == name]
        first, size = found[0][0], sum(abs(weight) for _, weight in found)
        values = np.sum([weight * table.values for table, weight in found], axis=0)
        scaled = (size * ends[0], size * ends[1])
        parts.append(variances(values, first.examples, scaled, first.share))
        means.append(values.mean(-1))
    return parts, means
