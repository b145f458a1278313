"""Measure a base on a suite; what is measured already is not measured again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from coldfusion_shared.errors import EvaluationFailed, InvalidRequest
from coldfusion_shared.evaluate.drawing import different, pool_share, with_replacement
from coldfusion_shared.evaluate.kept import KeptMeasurements, is_finite
from coldfusion_shared.evaluate.metrics import scorer_of
from coldfusion_shared.evaluate.protocols import Base, Measured, Measurer, Tick, protocol_named
from coldfusion_shared.evaluate.results import DatasetResult, Evaluated
from coldfusion_shared.evaluate.software import kept_by
from coldfusion_shared.evaluate.statistics import dataset_error
from coldfusion_shared.evaluate.suite import LoadedSuite, SuiteData
from coldfusion_shared.schemas.evaluations import ProtocolName
from coldfusion_shared.weights.layout import CONFIG_FILE

# Measurements that are done, parts of one among them; measurements in all; what is measured now.
Progress = Callable[[float, int, str], None]
Say = Callable[[str], None]


def evaluate_base(
    folder: Path,
    loaded: LoadedSuite,
    protocol: str,
    seeds: Sequence[int],
    kept: Path,
    progress: Progress = lambda done, total, what: None,
    say: Say = lambda sentence: None,
) -> Evaluated:
    """
    Measure the base in the folder `folder` on every data set of a suite, with every seed.

    Args:
        folder: a transformers folder.
        loaded: the suite with its data.
        protocol: "frozen", "finetuned" or "few-shot".
        seeds: different ones, usually 0, 1, 2.
        kept: a folder for features and results, used again by later runs: one that was
            interrupted goes on, and of another suite only what is new is measured.
        progress: called with the measurements (a data set with a seed) that are done, as a number
            with a fraction, with how many there are, and with what is measured now.
        say: told in a sentence what a person should know.

    Raises:
        UnknownName: there is no protocol of that name.
        InvalidRequest: no seeds, or one twice.
        BadSuite: the protocol cannot measure one of its data sets; said before all work.
        BadModel: the folder is no model, or none that can learn one of the tasks.
        EvaluationFailed: a feature or a score is no finite number, the memory does not suffice, or
            the base's files were changed meanwhile.
        TrainingFailed: a training diverged, or the memory does not suffice.
    """
    chosen = protocol_named(protocol)
    _check_seeds(seeds)
    for data in loaded.datasets:
        chosen.check(data, folder / CONFIG_FILE)
    base = Base.of(folder)
    session = _Session(
        chosen.begin(base, loaded.suite, kept, say),
        KeptMeasurements(kept / "results", say),
        (base.digest, protocol, dict(chosen.settings(loaded.suite)), loaded.suite.seed, kept_by()),
        base.check_unchanged,
        lambda done, what: progress(done, len(loaded.datasets) * len(seeds), what),
    )
    results = tuple(
        _result(data, seeds, [session.measure(data, seed) for seed in seeds], chosen.trained(data))
        for data in loaded.datasets
    )
    return Evaluated(loaded.suite, cast(ProtocolName, protocol), results)


def pool_notes(loaded: LoadedSuite, protocol: str) -> list[str]:
    """Return a sentence on each data set whose scores are lower as its training part is small."""
    chosen = protocol_named(protocol)
    sizes = [(data, chosen.trained(data), len(data.dataset.train)) for data in loaded.datasets]
    return [
        f"{data.entry.name}: there are {pool} training examples, from which each seed draws "
        f"{train} with replacement. About {different(train, pool)} of them differ, which lowers "
        "its scores a little, those of all bases alike."
        for data, train, pool in sizes
        if with_replacement(train, pool)
    ]


class _Session:
    """Measures what is not kept, keeps it, and tells how far it has come."""

    def __init__(
        self,
        measurer: Measurer,
        kept: KeptMeasurements,
        common: tuple[Any, ...],
        check: Callable[[], None],
        progress: Callable[[float, str], None],
    ) -> None:
        self.measurer, self.kept, self.common, self.check = measurer, kept, common, check
        self.progress, self.done = progress, 0

    def measure(self, data: SuiteData, seed: int) -> Measured:
        what = f"{data.entry.name}, seed {seed}"
        self.progress(self.done, what)
        measured = self._known(data, seed, lambda share: self.progress(self.done + share, what))
        self.done += 1
        self.progress(self.done, what)
        return measured

    def _known(self, data: SuiteData, seed: int, tick: Tick) -> Measured:
        # What a suite calls a data set, and says of who has seen it, changes no score.
        entry = data.entry.model_dump(mode="json", exclude={"name", "seen"})
        known = self.kept.get(*self.common, entry, seed)
        if known:
            return known
        measured = self.measurer.measure(data, seed, tick)
        self.check()
        if not is_finite(measured):
            raise EvaluationFailed(
                f"{data.entry.name}, seed {seed}: the score is no finite number.",
                hint="The base, or what was learnt from it, is broken: it cannot be measured.",
            )
        self.kept.put(measured, *self.common, entry, seed)
        return measured


def _result(
    data: SuiteData, seeds: Sequence[int], measured: Sequence[Measured], train: int
) -> DatasetResult:
    scores = tuple(one.score for one in measured)
    score, error, labels = sum(scores) / len(scores), None, None
    pool = len(data.dataset.train)
    guesses = tuple(one.guesses for one in measured if one.guesses is not None)
    if scorer := scorer_of(data.entry.task, data.entry.metric):
        labels = data.dataset.test["label"]
        score, error = dataset_error(labels, guesses, scorer, pool_share(train, pool))
    return DatasetResult(
        name=data.entry.name,
        metric=data.entry.metric,
        seen=data.entry.seen,
        seeds=tuple(seeds),
        by_seed=scores,
        score=score,
        standard_error=error,
        labels=labels,
        guesses=guesses or None,
        train=train,
        pool=pool,
        data_digest=data.entry.digest,
    )


def _check_seeds(seeds: Sequence[int]) -> None:
    if not seeds:
        raise InvalidRequest("No seed is given.", hint="Give one at least; three are usual.")
    if len(set(seeds)) < len(seeds):
        raise InvalidRequest("A seed is given twice.", hint="Give different ones.")
