"""Measuring by finetuning, with the training examples that a seed draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_shared.errors import BadModel, TrainingFailed
from coldfusion_shared.evaluate.metrics import scorer_of
from coldfusion_shared.evaluate.protocols import Base, Measured, Measurer, Say, Tick
from coldfusion_shared.evaluate.watched import WatchedTask
from coldfusion_shared.finetune.checkpoints import Checkpoints, name_training
from coldfusion_shared.finetune.failures import named_failures
from coldfusion_shared.finetune.settings import FinetuneSettings
from coldfusion_shared.finetune.threads import fitting_threads
from coldfusion_shared.tasks import task_named
from coldfusion_shared.tasks.architectures import architecture_of

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import TextDataset
    from coldfusion_shared.evaluate.suite import SuiteData
    from coldfusion_shared.schemas.evaluations import Suite

# Of a measurement, what the training takes; the scoring takes the rest.
TRAINING_SHARE = 0.95


@dataclass(frozen=True)
class Finetuning:
    """
    A protocol that finetunes as contributors do.

    Attributes:
        drawn: from a data set and a seed to what is learnt from and scored on.
        usual: settings that differ from a contributor's, unless the suite says others.
        few: whether it learns from the suite's few examples.
    """

    drawn: Callable[[SuiteData, int], TextDataset]
    usual: Mapping[str, Any]
    few: bool = False

    def check(self, data: SuiteData, folder: Path) -> None:
        """Refuse a task that models like this one cannot learn."""
        task = task_named(data.entry.task)
        found = architecture_of(folder / "config.json")
        if found not in task.architectures:
            raise BadModel(
                f"{data.entry.name!r} is for the task {task.name}, which bases of the kind "
                f"{' or '.join(task.architectures)} can learn; this one's is {found}.",
                hint="Take a suite without that data set.",
            )

    def settings(self, suite: Suite) -> Mapping[str, Any]:
        """Return all settings of a training but the seed, and how many a few are."""
        settings = self.training(suite, 0).model_dump(mode="json", exclude={"seed"})
        return {**settings, "few_shot": suite.few_shot if self.few else None}

    def training(self, suite: Suite, seed: int) -> FinetuneSettings:
        """Return how a model is finetuned."""
        chosen: dict[str, Any] = {**self.usual, **suite.training}
        return FinetuneSettings(**chosen, max_length=suite.max_length, seed=seed)

    def begin(self, base: Base, suite: Suite, kept: Path, say: Say) -> Measurer:
        """Load nothing yet: each training begins with the base as it is."""
        return _Finetuner(self, base.folder, suite, kept / "training", say)


@dataclass(frozen=True)
class _Finetuner:
    protocol: Finetuning
    base: Path
    suite: Suite
    checkpoints: Path
    say: Say

    def measure(self, data: SuiteData, seed: int, tick: Tick) -> Measured:
        dataset = self.protocol.drawn(data, seed)
        scorer = scorer_of(data.entry.task, data.entry.metric)
        if scorer is None:
            scores = self._scores(dataset, seed, task_named(data.entry.task), tick)
            return Measured(scores[data.entry.metric], None)
        watched = WatchedTask(task_named(data.entry.task), data.entry.metric)
        self._scores(dataset, seed, watched, tick)
        guesses = watched.guesses()
        return Measured(scorer(dataset.test["label"], guesses), guesses)

    def _scores(
        self, dataset: TextDataset, seed: int, task: Any, tick: Tick
    ) -> Mapping[str, float]:
        """Finetune, and return the scores on the test part, which is scored last."""
        settings = self.protocol.training(self.suite, seed)
        named = name_training(self.base, dataset, settings)
        with named_failures(), fitting_threads(), self._kept(named) as checkpoints:
            from coldfusion_shared.finetune.training import Training

            training = Training(self.base, dataset, settings, task, self.say)
            training.run(lambda done, all_, _: tick(TRAINING_SHARE * done / all_), checkpoints)
            return training.score(dataset.test)

    @contextmanager
    def _kept(self, name: str) -> Iterator[Checkpoints]:
        """Yield where the training stands; it is removed once the training leads nowhere else."""
        checkpoints = Checkpoints(self.checkpoints, name)
        try:
            yield checkpoints
        except TrainingFailed:
            checkpoints.clear()
            raise
        checkpoints.clear()
