"""What was measured, put together: means over seeds, and differences paired with a reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coldfusion_shared.errors import InvalidRequest, SuiteChanged
from coldfusion_shared.evaluate.comparison import Comparison, Difference, compare
from coldfusion_shared.evaluate.jackknife import pseudo_values
from coldfusion_shared.evaluate.metrics import scorer_of
from coldfusion_shared.evaluate.results import DatasetResult, Evaluated
from coldfusion_shared.evaluate.statistics import average_error, dataset_error
from experiments.records import Group, Record, Records

if TYPE_CHECKING:
    from coldfusion_shared.schemas.evaluations import Suite

GROUPS: Mapping[Group, bool | None] = {"all": None, "seen": True, "unseen": False}


@dataclass(frozen=True, order=True)
class Place:
    """Which base was scored, and how."""

    arm: str
    iteration: int
    scoring: str


class Notebook:
    """Writes records as they come, and sums them up in the end."""

    def __init__(self, protocol: str, records: Records) -> None:
        """Begin."""
        self.protocol, self.records = protocol, records
        self.measured: dict[Place, dict[int, list[Evaluated]]] = {}

    def add(self, record: Record) -> None:
        """Write a record."""
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
        for place, seeds in self.measured.items():
            self._means(place, [_side_by_side(parts) for _, parts in sorted(seeds.items())])
        for place in self.measured:
            if place.arm != reference:
                self._difference(place, reference)
        for arm, against in pairs:
            for scoring in sorted({place.scoring for place in self.measured}):
                if (last := self._last(arm, scoring)) is not None:
                    self._difference(last, against)

    def _last(self, arm: str, scoring: str) -> Place | None:
        found = [p for p in self.measured if p.arm == arm and p.scoring == scoring]
        return max(found, default=None)

    def _means(self, place: Place, found: Sequence[Evaluated]) -> None:
        together = joined(found)
        for result in together.results:
            self._mean(place, together, [result], dataset=result.name, seen=result.seen)
        for group, seen in GROUPS.items():
            chosen = [r for r in together.results if seen is None or r.seen is seen]
            if chosen:
                self._mean(place, together, chosen, group=group)

    def _mean(
        self,
        place: Place,
        together: Evaluated,
        results: Sequence[DatasetResult],
        dataset: str | None = None,
        seen: bool | None = None,
        group: Group | None = None,
    ) -> None:
        self.add(
            Record(
                kind="mean",
                protocol=self.protocol,
                arm=place.arm,
                iteration=place.iteration,
                dataset=dataset,
                group=group,
                seen=seen,
                scoring=place.scoring,
                metric=together.metric,
                value=sum(r.score for r in results) / len(results),
                standard_error=average_error([r.standard_error for r in results]),
                note=f"{len(together.seeds)} seeds",
            )
        )

    def _difference(self, place: Place, against: str) -> None:
        other = self._last(against, place.scoring)
        if other is None:
            return
        ours, theirs = self.measured[place], self.measured[other]
        seeds = sorted(ours.keys() & theirs.keys())
        note = None
        if len(seeds) < max(len(ours), len(theirs)):
            note = f"of {len(seeds)} seeds alone, for want of the others"
        try:
            found = compare(
                *(joined([_side_by_side(one[seed]) for seed in seeds]) for one in (theirs, ours))
            )
        except (InvalidRequest, SuiteChanged, IndexError) as error:
            self.add(
                Record(
                    kind="failure",
                    protocol=self.protocol,
                    arm=place.arm,
                    iteration=place.iteration,
                    scoring=place.scoring,
                    against=against,
                    note=f"not compared with {against}: {error}",
                )
            )
            return
        self._compared(place, against, found, note)

    def _compared(self, place: Place, against: str, found: Comparison, note: str | None) -> None:
        groups: dict[Group, Difference | None] = {
            "all": found.average, "seen": found.seen, "unseen": found.unseen,
        }  # fmt: skip
        rows: list[tuple[str | None, Group | None, bool | None, Difference]] = [
            (one.name, None, one.seen, one.scores) for one in found.datasets
        ]
        rows += [(None, group, None, one) for group, one in groups.items() if one is not None]
        for dataset, group, seen, difference in rows:
            self.add(
                Record(
                    kind="difference",
                    protocol=self.protocol,
                    arm=place.arm,
                    iteration=place.iteration,
                    dataset=dataset,
                    group=group,
                    seen=seen,
                    scoring=place.scoring,
                    value=difference.points,
                    standard_error=difference.standard_error,
                    low=difference.low,
                    high=difference.high,
                    against=against,
                    note=note,
                )
            )


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


def _side_by_side(parts: Sequence[Evaluated]) -> Evaluated:
    """Return several suites of one seed as one, as of the folds of a pool."""
    if len(parts) == 1:
        return parts[0]
    suite = parts[0].suite
    datasets = [entry for part in parts for entry in part.suite.datasets]
    results = tuple(result for part in parts for result in part.results)
    return replace(parts[0], suite=suite.model_copy(update={"datasets": datasets}), results=results)


def _error_of_examples(suite: Suite, result: DatasetResult) -> float | None:
    """Return the standard error of one seed's score, by its test examples alone."""
    import numpy as np

    entry = next(one for one in suite.datasets if one.name == result.name)
    scorer = scorer_of(entry.task, entry.metric)
    if scorer is None or result.labels is None or result.guesses is None:
        return None
    values = np.asarray(pseudo_values(result.labels, result.guesses, scorer))[0]
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
