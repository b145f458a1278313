"""What was measured, put together: means over seeds, and differences paired with a reference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from coldfusion_shared.errors import InvalidRequest, SuiteChanged
from coldfusion_shared.evaluate.comparison import compare
from coldfusion_shared.evaluate.jackknife import pseudo_values
from coldfusion_shared.evaluate.metrics import scorer_of
from coldfusion_shared.evaluate.results import DatasetResult, Evaluated
from coldfusion_shared.evaluate.statistics import DIFFERENCES, SCORES, dataset_error
from experiments.averages import (
    Error,
    Table,
    differences,
    error_of,
    tables_of,
    weighted,
    weights_of,
)
from experiments.joining import common
from experiments.records import Group, Kind, Record, Records

if TYPE_CHECKING:
    from coldfusion_shared.schemas.evaluations import Suite

# What an arm's last base is compared with beside other arms: the arm's own first round; and, of
# its gain over the reference on data sets that are seen, that on those that are not.
FIRST_ROUND, UNSEEN_GAIN = "its first scored round", "its gain on unseen data sets"


@dataclass(frozen=True, order=True)
class Place:
    """Which base was scored, and how."""

    arm: str
    iteration: int
    scoring: str


@dataclass(frozen=True)
class Pair:
    """
    Two bases by the same seeds on the same data sets.

    Attributes:
        before: what the one has reached.
        after: what the other one has.
        note: which seeds or data sets are left out, as one of the two lacks them.
    """

    before: Evaluated
    after: Evaluated
    note: str | None

    @cached_property
    def _tables(self) -> list[Table] | None:
        before, after = tables_of(self.before), tables_of(self.after)
        return differences(before, after) if before and after else None

    def error(self, weights: Sequence[float]) -> Error | None:
        """Return the error of a weighted sum of the data sets' differences; null: not known."""
        return error_of(self._tables, weights, DIFFERENCES) if self._tables else None


class Notebook:
    """Writes records as they come, and sums them up in the end."""

    def __init__(self, protocol: str, records: Records) -> None:
        """Begin."""
        self.protocol, self.records = protocol, records
        self.measured: dict[Place, dict[int, list[Evaluated]]] = {}
        self.choices: set[Record] = set()

    def add(self, record: Record) -> None:
        """Write a record; a choice only once, however many seeds make it."""
        if record in self.choices:
            return
        if record.kind == "choice":
            self.choices.add(record)
        self.records.add(record)

    def enter(
        self, place: Place, seed: int, found: Evaluated, base: str, seconds: float | None
    ) -> None:
        """Write what one seed has measured; several suites of a seed count side by side."""
        self.measured.setdefault(place, {}).setdefault(seed, []).append(found)
        for result in found.results:
            self.add(
                Record(
                    kind="score",
                    protocol=self.protocol,
                    arm=place.arm,
                    iteration=place.iteration,
                    seed=seed,
                    dataset=result.name,
                    seen=result.seen,
                    scoring=place.scoring,
                    metric=result.metric,
                    value=result.score,
                    standard_error=_error_of_examples(found.suite, result),
                    seconds=seconds,
                    base=base,
                    data=result.data_digest,
                )
            )

    def conclude(self, reference: str, pairs: Iterable[tuple[str, str]]) -> None:
        """
        Write means over seeds, and differences.

        Args:
            reference: the arm that all others are compared with.
            pairs: further arms to compare, each with the one behind it.
        """
        for place in self.measured:
            with self._failing(place, "no means"):
                self._means(place)
        for place in self.measured:
            if place.arm != reference:
                ends = place == self._last(place.arm, place.scoring)
                self._difference(place, reference, groups_apart=ends)
        for arm, against in pairs:
            for scoring in sorted({place.scoring for place in self.measured}):
                if (last := self._last(arm, scoring)) is not None:
                    self._difference(last, against)
        for arm, scoring in dict.fromkeys((one.arm, one.scoring) for one in self.measured):
            first, *later = self._places(arm, scoring)
            if later:
                self._compared(later[-1], FIRST_ROUND, first)

    def _places(self, arm: str, scoring: str) -> list[Place]:
        return sorted(p for p in self.measured if p.arm == arm and p.scoring == scoring)

    def _last(self, arm: str, scoring: str) -> Place | None:
        return max(self._places(arm, scoring), default=None)

    @contextmanager
    def _failing(self, place: Place, what: str, against: str | None = None) -> Iterator[None]:
        """Note what cannot be told in the block, and go on behind it."""
        try:
            yield
        except (InvalidRequest, SuiteChanged) as error:
            note = f"{what}: {error}"
            self._write("failure", place, against=against, note=note)

    def _means(self, place: Place) -> None:
        found = self.measured[place]
        parts, without = common([found[seed] for seed in sorted(found)])
        together = joined(parts)
        told = partial(
            self._write, "mean", place, metric=together.metric,
            note=_note("1 seed" if len(found) == 1 else f"{len(found)} seeds", without),
        )  # fmt: skip
        for one in together.results:
            told(
                dataset=one.name, seen=one.seen, value=one.score, standard_error=one.standard_error
            )
        tables = tables_of(together)
        for group, weights in weights_of(together).items():
            error = error_of(tables, weights, SCORES) if tables else None
            told(
                group=group,
                value=weighted([one.score for one in together.results], weights),
                standard_error=error and error.standard,
            )

    def _difference(self, place: Place, against: str, *, groups_apart: bool = False) -> None:
        other = self._last(against, place.scoring)
        if other is not None:
            self._compared(place, against, other, groups_apart=groups_apart)

    def _compared(
        self, place: Place, against: str, other: Place, *, groups_apart: bool = False
    ) -> None:
        """
        Write by how much a base is better than another one.

        Args:
            place: of the base.
            against: what the other one is called.
            other: its place.
            groups_apart: whether to write, too, by how much more it is better on data sets that
                are seen than on the others.
        """
        with self._failing(place, f"not compared with {against}", against):
            pair = self._pair(other, place)
            for one in compare(pair.before, pair.after).datasets:
                scores = one.scores
                self._write(
                    "difference", place, against=against, dataset=one.name, seen=one.seen,
                    value=scores.points, standard_error=scores.standard_error,
                    low=scores.low, high=scores.high, note=pair.note,
                )  # fmt: skip
            weights = weights_of(pair.after)
            for group in weights:
                self._gain(place, against, group, pair, weights[group])
            if groups_apart and {"seen", "unseen"} <= weights.keys():
                both = zip(weights["seen"], weights["unseen"], strict=True)
                less = [seen - unseen for seen, unseen in both]
                self._gain(place, UNSEEN_GAIN, "seen", pair, less)

    def _pair(self, before: Place, after: Place) -> Pair:
        was, now = self.measured[before], self.measured[after]
        seeds = sorted(was.keys() & now.keys())
        parts, without = common([side[seed] for side in (was, now) for seed in seeds])
        note, count = None, len(seeds)
        if count < max(len(was), len(now)):
            note = f"of {count} seeds alone, for want of the others"
        return Pair(joined(parts[:count]), joined(parts[count:]), _note(note, without))

    def _gain(
        self, place: Place, against: str, group: Group, pair: Pair, weights: Sequence[float]
    ) -> None:
        """Write a weighted sum of the differences of data sets."""
        results = zip(pair.before.results, pair.after.results, strict=True)
        value = weighted([now.score - was.score for was, now in results], weights)
        error = pair.error(weights)
        self._write(
            "difference", place, against=against, group=group, value=value,
            standard_error=error and error.standard,
            low=error and value - error.half_width,
            high=error and value + error.half_width,
            note=pair.note,
        )  # fmt: skip

    def _write(self, kind: Kind, place: Place, **values: Any) -> None:
        """Write a record of all seeds."""
        self.add(Record(kind=kind, protocol=self.protocol, **vars(place), **values))


def joined(found: Sequence[Evaluated]) -> Evaluated:
    """
    Return what several lines have measured, each with a seed of its own, as one evaluation.

    A seed stands for all that chance decides: the line's draws, and those of the scoring.
    """
    first = found[0]
    columns = zip(*(one.results for one in found), strict=True)
    return replace(first, results=tuple(_joined(first.suite, column) for column in columns))


def _joined(suite: Suite, results: Sequence[DatasetResult]) -> DatasetResult:
    first = results[0]
    entry = next(one for one in suite.datasets if one.name == first.name)
    scorer = scorer_of(entry.task, entry.metric)
    guesses = tuple(guess for one in results for guess in one.guesses or ())
    assert scorer is not None and first.labels is not None, "texts are classified here"
    score, error = dataset_error(first.labels, guesses, scorer, first.share)
    return replace(
        first,
        seeds=tuple(seed for one in results for seed in one.seeds),
        by_seed=tuple(score for one in results for score in one.by_seed),
        score=score,
        standard_error=error,
        guesses=guesses,
    )


def _note(note: str | None, without: Sequence[str]) -> str | None:
    """Return a note, and which data sets not all seeds have."""
    left = f"without {', '.join(without)}, which not every seed has" if without else None
    return "; ".join(one for one in (note, left) if one) or None


def _error_of_examples(suite: Suite, result: DatasetResult) -> float | None:
    """Return the standard error of one seed's score, by its test examples alone."""
    import numpy as np

    entry = next(one for one in suite.datasets if one.name == result.name)
    scorer = scorer_of(entry.task, entry.metric)
    if scorer is None or result.labels is None or result.guesses is None:
        return None
    values = np.asarray(pseudo_values(result.labels, result.guesses, scorer))[0]
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
