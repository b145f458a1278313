"""Evaluations of a model's bases, put together so that bases can be compared. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from coldfusion_server.dashboard.values import Value, average, difference, middle
from coldfusion_shared.schemas.evaluations import OWN_EVALUATOR, Evaluation

PROTOCOLS = ("frozen", "finetuned", "few-shot")
EXPLAINED = {
    "frozen": "linear probing: the base stays as it is, only a head is trained",
    "finetuned": "the whole base is finetuned on each data set",
    "few-shot": "finetuned on a few examples of each data set",
}
# As scores are shown: less than this is no difference.
VISIBLE = 0.005
# Bases in a table.
SHOWN = 12

Kind = Literal["seen", "unseen"]
# Suite's digest -> data set -> whether contributors may have trained on it; null: not said.
Seen = Mapping[str, Mapping[str, bool | None]]
Verdict = Literal["better", "worse", "same", "unclear", "one seed", "unknown"]


@dataclass(frozen=True)
class Measured:
    """
    One base: the median of its evaluators, data set by data set; of each the newest counts.

    Attributes:
        version: which base.
        values: the scores by data set.
        evaluations: what they are the median of, oldest first.
    """

    version: str
    values: Mapping[str, Value]
    evaluations: Sequence[Evaluation]

    @cached_property
    def average(self) -> Value:
        """The plain average of all its data sets."""
        return average(self.values.values())

    @property
    def one_seed(self) -> bool:
        """Whether nobody has measured it with more than one seed, though somebody says so."""
        return max(len(item.seeds) for item in self.evaluations) == 1

    def over(self, names: Iterable[str]) -> Value | None:
        """Return the average over those of `names` that it was measured on; null: none."""
        values = [self.values[name] for name in names if name in self.values]
        return average(values) if values else None


@dataclass(frozen=True)
class Part:
    """The data sets that contributors may have trained on, or those that they have not."""

    kind: Kind
    names: list[str]


@dataclass(frozen=True)
class Row:
    """A line of a table: one value for each base, and differences; null: not measured."""

    name: str
    kind: Kind | None
    values: list[Value | None]
    changes: list[Value | None]


@dataclass(frozen=True)
class Table:
    """
    Scores of some bases.

    Attributes:
        versions: the bases, one for each value.
        against: with which bases the last one is compared, one for each change.
        averages: of all data sets, then of the seen and of the unseen ones where that is said.
        datasets: the same by data set.
    """

    versions: list[str]
    against: list[str]
    averages: list[Row]
    datasets: list[Row]


@dataclass(frozen=True)
class Gain:
    """By how many points a base is better than another, on average or on one data set."""

    name: str
    kind: Kind | None
    value: Value
    average: bool


@dataclass(frozen=True)
class Series:
    """
    One protocol on one suite, over the bases.

    What was measured on data of different digests never shares a series; without a digest the
    suite's name has to do.

    Attributes:
        protocol: frozen, finetuned or few-shot.
        suite: which data sets.
        digest: of the suite with its data; null: nobody can tell which data it were.
        metric: what a score is.
        bases: those that were measured, oldest first, at least one.
        kinds: what the suite says of its data sets, where it says something.
    """

    protocol: str
    suite: str
    digest: str | None
    metric: str
    bases: list[Measured]
    kinds: Mapping[str, Kind]

    @property
    def key(self) -> str:
        """A short plain name of the series, the same at every look."""
        parts = (self.protocol, self.digest or self.suite, str(self.digest), self.metric)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]

    @property
    def versions(self) -> list[str]:
        """The bases that were measured."""
        return [item.version for item in self.bases]

    @cached_property
    def averages(self) -> list[Value]:
        """Their plain averages."""
        return [item.average for item in self.bases]

    @cached_property
    def names(self) -> list[str]:
        """All data sets, by name."""
        return sorted({name for item in self.bases for name in item.values})

    @cached_property
    def parts(self) -> list[Part]:
        """Seen and unseen data sets apart; empty where all are of one kind, or none is said."""
        parts = [
            Part(kind, [name for name in self.names if self.kinds.get(name) == kind])
            for kind in ("seen", "unseen")
        ]
        return [part for part in parts if 0 < len(part.names) < len(self.names)]

    @property
    def own(self) -> bool:
        """Whether the Repository's own evaluator has measured any of the bases."""
        return any(
            found.evaluator == OWN_EVALUATOR for item in self.bases for found in item.evaluations
        )

    @property
    def even(self) -> bool:
        """Whether all bases were measured on the same data sets: then their averages compare."""
        return all(len(item.values) == len(self.names) for item in self.bases)

    @property
    def has_errors(self) -> bool:
        """Whether any average has a standard error."""
        return any(value.error is not None for value in self.averages)

    @property
    def compared(self) -> bool:
        """Whether there is v0, and a later base that was measured on some of its data sets."""
        if len(self.bases) < 2 or self.versions[0] != "v0":
            return False
        return not self.bases[0].values.keys().isdisjoint(self.bases[-1].values)

    @property
    def first(self) -> Value:
        """The average of the first base, over the data sets that the last one has, too."""
        return self._of_both(self.bases[0])

    @property
    def last(self) -> Value:
        """The average of the last base over the same data sets."""
        return self._of_both(self.bases[-1])

    @property
    def change(self) -> Value:
        """By how many points the last base is better than the first."""
        return difference(self.last, self.first)

    @property
    def verdict(self) -> Verdict:
        """Whether the last base is better than the first, as far as the noise lets one see."""
        change = self.change
        if abs(change.score) < VISIBLE:
            return "same"
        if any(item.one_seed for item in (self.bases[0], self.bases[-1])):
            return "one seed"
        if change.explained is None:
            return "unknown"
        if not change.clear:
            return "unclear"
        return "better" if change.score > 0 else "worse"

    @property
    def explained(self) -> str:
        """What the protocol means."""
        return EXPLAINED.get(self.protocol, "")

    @property
    def gains(self) -> list[Gain]:
        """By how much the last base is better than the first, on average."""
        return [gain for row in self._ends.averages if (gain := _gain(row, average=True))]

    @property
    def gains_by_dataset(self) -> list[Gain]:
        """The same by data set, from the best to the worst."""
        found = [gain for row in self._ends.datasets if (gain := _gain(row, average=False))]
        return sorted(found, key=lambda gain: (-gain.value.score, gain.name))

    @cached_property
    def _ends(self) -> Table:
        return self.table([self.versions[0], self.versions[-1]], [self.versions[0]])

    @cached_property
    def part_averages(self) -> list[list[Value | None]]:
        """For each of the parts, the average over its data sets, base by base."""
        return [[item.over(part.names) for item in self.bases] for part in self.parts]

    def of_dataset(self, name: str) -> list[Value | None]:
        """Return what each base scores on one data set; null: it was not measured on it."""
        return [item.values.get(name) for item in self.bases]

    def since_first(self, base: Measured) -> Value | None:
        """Return by how many points `base` is better than the first one."""
        return _change(base, self.bases[0], self.names)

    @property
    def shown(self) -> list[str]:
        """The bases that a table has room for: the first one and the newest."""
        versions = self.versions
        return versions if len(versions) <= SHOWN else [versions[0], *versions[1 - SHOWN :]]

    def table(self, versions: Sequence[str], against: Sequence[str]) -> Table:
        """Compare the last of `versions` with those of `against` that were measured."""
        bases = {item.version: item for item in self.bases}
        shown = [bases[version] for version in versions if version in bases]
        others = [bases[version] for version in against if version in bases]
        names = [("Average", None, self.names)]
        parts = [(f"Average of {part.kind}", part.kind, part.names) for part in self.parts]
        return Table(
            [item.version for item in shown],
            [item.version for item in others],
            [_row(name, kind, of, shown, others) for name, kind, of in [*names, *parts]],
            [_row(name, self.kinds.get(name), [name], shown, others) for name in self.names],
        )

    def _of_both(self, base: Measured) -> Value:
        first, last = self.bases[0].values, self.bases[-1].values
        return base.over(first.keys() & last.keys()) or base.average


def series(evaluations: Iterable[Evaluation], seen: Seen | None = None) -> list[Series]:
    """
    Return a series for each protocol, suite and metric; the first one is the model's headline.

    First comes what the Repository's own evaluator measures, which its operator has chosen: nobody
    else's suite takes its place. Then frozen before finetuned before few-shot, what is pinned by a
    digest, the longest series, and the one that has the newest base. Names decide only where all
    of that is equal.
    """
    groups: dict[tuple[str, str, str | None, str], list[Evaluation]] = {}
    for item in evaluations:
        # With a digest the data are known, whatever the suite is called.
        name = item.suite if item.suite_digest is None else ""
        key = (item.protocol, name, item.suite_digest, item.metric)
        groups.setdefault(key, []).append(item)
    found = [_series(group, (seen or {}).get(group[0].suite_digest or "", {}))
             for group in groups.values()]  # fmt: skip
    return sorted(found, key=_rank)


def _series(group: Sequence[Evaluation], seen: Mapping[str, bool | None]) -> Series:
    by_base: dict[int, list[Evaluation]] = {}
    for item in sorted(group, key=lambda item: item.created_at):
        assert item.version is not None, "they are of bases"
        by_base.setdefault(int(item.version[1:]), []).append(item)
    bases = [_measured(f"v{number}", by_base[number]) for number in sorted(by_base)]
    latest = bases[-1].evaluations[-1]
    kinds: dict[str, Kind] = {
        name: "seen" if said else "unseen" for name, said in seen.items() if said is not None
    }
    return Series(
        latest.protocol, latest.suite, latest.suite_digest, latest.metric, bases, kinds
    )  # fmt: skip


def _measured(version: str, evaluations: Sequence[Evaluation]) -> Measured:
    """Put the evaluations of one base together, oldest first."""
    newest = {item.evaluator: item for item in evaluations}
    counted = [item for item in evaluations if newest[item.evaluator] is item]
    values: dict[str, list[Value]] = {}
    for item in counted:
        freedom = len(item.seeds) - 1 if len(item.seeds) > 1 else None
        for name, score in item.scores.items():
            value = Value(score, item.standard_errors.get(name), freedom)
            values.setdefault(name, []).append(value)
    return Measured(version, {name: middle(values[name]) for name in sorted(values)}, counted)


def _row(
    name: str,
    kind: Kind | None,
    datasets: Sequence[str],
    shown: Sequence[Measured],
    others: Sequence[Measured],
) -> Row:
    return Row(
        name,
        kind,
        [item.over(datasets) for item in shown],
        [_change(shown[-1], other, datasets) for other in others],
    )


def _change(new: Measured, old: Measured, datasets: Sequence[str]) -> Value | None:
    # Averages over different data sets say nothing about each other.
    both = [name for name in datasets if name in new.values and name in old.values]
    if not both:
        return None
    return difference(
        average(new.values[name] for name in both), average(old.values[name] for name in both)
    )


def _gain(row: Row, *, average: bool) -> Gain | None:
    (change,) = row.changes
    return None if change is None else Gain(row.name, row.kind, change, average)


def _rank(item: Series) -> tuple[bool, int, bool, int, int, str, str]:
    known = item.protocol in PROTOCOLS
    protocol = PROTOCOLS.index(item.protocol) if known else len(PROTOCOLS)
    longest, newest = len(item.bases), int(item.versions[-1][1:])
    pinned = item.digest is not None
    return not item.own, protocol, not pinned, -longest, -newest, item.suite, item.metric
