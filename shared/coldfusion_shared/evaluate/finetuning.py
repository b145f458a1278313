"""Measuring by finetuning, with the training examples that a seed draws."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_shared.errors import BadModel, TrainingFailed
from coldfusion_shared.evaluate.metrics import scorer_of
from coldfusion_shared.evaluate.protocols import Base, Measured, Measurer, Say, Tick
from coldfusion_shared.evaluate.suite_file import FEW_SHOT
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
# What nobody has gone on with for so long was given up.
GIVEN_UP_SECONDS = 7 * 86400


@dataclass(frozen=True)
class Finetuning:
    """
    A protocol that finetunes as contributors do.

    Attributes:
        usual: settings that differ from a contributor's, unless the suite says others.
        few: whether it learns from the suite's few examples, by the suite's settings for those.
    """

    usual: Mapping[str, Any]
    few: bool = False

    def check(self, data: SuiteData, config: Path) -> None:
        """Refuse a task that models like this one cannot learn."""
        task = task_named(data.entry.task)
        found = architecture_of(config)
        if found not in task.architectures:
            raise BadModel(
                f"{data.entry.name!r} is for the task {task.name}, which bases of the kind "
                f"{' or '.join(task.architectures)} can learn; this one's is {found}.",
                hint="Take a suite without that data set.",
            )

    def trained(self, data: SuiteData) -> int:
        """Return the suite's limit or its few examples; or all, where there are no more."""
        return data.few_train if self.few else data.entry.train

    def settings(self, suite: Suite) -> Mapping[str, Any]:
        """Return all settings of a training but the seed, and how many a few are."""
        settings = self.training(suite, 0).model_dump(mode="json", exclude={"seed"})
        return {**settings, "few_shot": suite.few_shot if self.few else None}

    def training(self, suite: Suite, seed: int) -> FinetuneSettings:
        """Return how a model is finetuned."""
        said = {
            name.removeprefix(FEW_SHOT): value
            for name, value in suite.training.items()
            if name.startswith(FEW_SHOT) == self.few
        }
        chosen: dict[str, Any] = {**self.usual, **said}
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
        dataset = data.few(seed) if self.protocol.few else data.draw(seed)
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
        named = name_training(self.base, dataset, settings, task.metric)
        with named_failures(), fitting_threads(), self._kept(named) as checkpoints:
            from coldfusion_shared.finetune.training import Training

            training = Training(self.base, dataset, settings, task, self.say)
            training.run(lambda done, all_, _: tick(TRAINING_SHARE * done / all_), checkpoints)
            return training.score(dataset.test)

    @contextmanager
    def _kept(self, name: str) -> Iterator[Checkpoints]:
        """Yield where the training stands; it is removed once the training leads nowhere else."""
        _tidy(self.checkpoints)
        # In a folder of its own: others may be trained beside it.
        checkpoints = Checkpoints(self.checkpoints / name, name)
        try:
            yield checkpoints
        except TrainingFailed:
            self._remove(checkpoints)
            raise
        self._remove(checkpoints)

    def _remove(self, checkpoints: Checkpoints) -> None:
        checkpoints.clear()
        # Not where another training goes on.
        with suppress(OSError):
            self.checkpoints.rmdir()


def _tidy(folder: Path) -> None:
    """Remove the checkpoints of trainings that were given up."""
    for one in folder.glob("*"):
        with suppress(OSError):
            if time.time() - one.stat().st_mtime > GIVEN_UP_SECONDS:
                shutil.rmtree(one)
