"""Evaluations of a model's bases, put together so that bases can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from coldfusion_shared.schemas.bases import Evaluation

PROTOCOLS = ("frozen", "finetuned", "few-shot")
EXPLAINED = {
    "frozen": "linear probing: the base stays as it is, only a head is trained",
    "finetuned": "the whole base is finetuned on each data set",
    "few-shot": "finetuned on a few examples of each data set",
}


@dataclass(frozen=True)
class DatasetRow:
    """One data set's scores, one for each base; null where it was not measured."""

    name: str
    scores: list[float | None]
    change: float | None


@dataclass(frozen=True)
class Series:
    """
    One protocol on one suite, over the bases.

    Attributes:
        protocol: frozen, finetuned or few-shot.
        suite: which data sets.
        metric: what a score is.
        evaluations: the newest of each base that has one, oldest base first.
        datasets: the same, data set by data set.
        first: the average of the first base over the data sets that the last one has, too.
        last: the average of the last base over the same data sets.
    """

    protocol: str
    suite: str
    metric: str
    evaluations: list[Evaluation]
    datasets: list[DatasetRow]
    first: float
    last: float

    @property
    def versions(self) -> list[str]:
        """The bases that were measured."""
        return [item.version for item in self.evaluations]

    @property
    def averages(self) -> list[float]:
        """Their plain averages."""
        return [item.average for item in self.evaluations]

    @property
    def compared(self) -> bool:
        """Whether there is v0 and a later base to compare it with."""
        return len(self.evaluations) > 1 and self.evaluations[0].version == "v0"

    @property
    def change(self) -> float:
        """By how many points the last base is better than the first."""
        return self.last - self.first

    @property
    def explained(self) -> str:
        """What the protocol means."""
        return EXPLAINED.get(self.protocol, "")


def series(evaluations: Iterable[Evaluation]) -> list[Series]:
    """Return a series for each suite and protocol, frozen first; later evaluations win."""
    groups: dict[tuple[str, str, str], dict[int, Evaluation]] = {}
    for item in evaluations:
        group = groups.setdefault((item.protocol, item.suite, item.metric), {})
        number = int(item.version[1:])
        if number not in group or group[number].created_at <= item.created_at:
            group[number] = item
    order = sorted(groups, key=lambda key: (_rank(key[0]), *key))
    return [_series(*key, groups[key]) for key in order]


def _series(protocol: str, suite: str, metric: str, by_base: Mapping[int, Evaluation]) -> Series:
    newest = [by_base[number] for number in sorted(by_base)]
    names = sorted({name for item in newest for name in item.scores})
    first, last = newest[0].scores, newest[-1].scores
    # Averages over different data sets say nothing about each other.
    common = sorted(first.keys() & last.keys())
    rows = [
        DatasetRow(
            name,
            [item.scores.get(name) for item in newest],
            last[name] - first[name] if name in common else None,
        )
        for name in names
    ]
    return Series(
        protocol,
        suite,
        metric,
        newest,
        rows,
        fmean(first[name] for name in common) if common else newest[0].average,
        fmean(last[name] for name in common) if common else newest[-1].average,
    )


def _rank(protocol: str) -> int:
    return PROTOCOLS.index(protocol) if protocol in PROTOCOLS else len(PROTOCOLS)
