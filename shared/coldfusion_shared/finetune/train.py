"""Finetune a base on a data set, with transformers' Trainer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from coldfusion_shared.errors import TrainingFailed
from coldfusion_shared.finetune import processes
from coldfusion_shared.finetune.checkpoints import Checkpoints, name_training
from coldfusion_shared.finetune.failures import named_failures
from coldfusion_shared.finetune.output import whole_folder
from coldfusion_shared.finetune.privacy import Spent
from coldfusion_shared.finetune.threads import fitting_threads
from coldfusion_shared.tasks import task_named

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import TextDataset
    from coldfusion_shared.finetune.settings import FinetuneSettings

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class FinetuneResult:
    """
    What a finetuning has come to.

    Attributes:
        task: the kind of task.
        metric: what the scores are, in percent.
        validation: score on the validation part.
        test: score on the test part, which nothing was chosen by.
        steps: optimizer steps.
        seconds: wall time of the training alone; of one that was resumed, of its last part.
        examples: examples of the training part.
        metrics: every metric of the task on the test part, by name.
        privacy: what the weights may tell of single examples; null: nothing bounds it.
    """

    task: str
    metric: str
    validation: float
    test: float
    steps: int
    seconds: float
    examples: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    privacy: Spent | None = None


def finetune(
    base: Path,
    dataset: TextDataset,
    settings: FinetuneSettings,
    output: Path,
    progress: Progress = lambda done, total, loss: None,
    say: Callable[[str], None] = lambda sentence: None,
    checkpoints: Path | None = None,
) -> FinetuneResult:
    """
    Finetune the model in the folder `base` and write it, with its head, into the folder `output`.

    Under torchrun or `accelerate launch` each process calls this; the first one writes and tells.

    Args:
        base: a transformers folder.
        dataset: what to learn from.
        settings: how.
        output: appears whole or not at all; an earlier one is replaced.
        progress: called after each step with steps done, steps in all, and the latest loss; what
            it raises ends the training. Steps that have to be done again are told again.
        say: told in a sentence what a person should know, such as that the memory was too small.
        checkpoints: a folder for checkpoints, which is removed in the end. The same call after a
            kill goes on from the last one. null: none are written.

    Raises:
        BadModel: the base or its tokenizer cannot be loaded.
        InvalidRequest: the machine or the model cannot do what the settings ask for.
        TrainingFailed: the loss is no number any more, or the memory does not suffice.
        StorageFull: no room for the finetuned model.
    """
    task = task_named(dataset.task)
    kept = None
    if checkpoints:
        kept = Checkpoints(checkpoints, name_training(base, dataset, settings))
    with (
        named_failures(),
        _written(output) as folder,
        fitting_threads(),
        processes.together(),
        _tidied(kept),
    ):
        from coldfusion_shared.finetune.training import Training

        training = Training(base, dataset, settings, task, say)
        started = time.monotonic()
        steps = training.run(progress, kept)
        seconds = time.monotonic() - started
        validation, test = training.score(dataset.validation), training.score(dataset.test)
        if folder is not None:
            training.save(folder)
    if kept and processes.is_first():
        kept.clear()
    return FinetuneResult(
        task=task.name,
        metric=task.metric,
        validation=validation[task.metric],
        test=test[task.metric],
        steps=steps,
        seconds=seconds,
        examples=len(dataset.train),
        metrics=test,
        privacy=training.privacy.spent if training.privacy else None,
    )


def score_model(folder: Path, dataset: TextDataset, settings: FinetuneSettings) -> float:
    """
    Return the score on the test part of a model that was finetuned on the data set, in percent.

    Args:
        folder: the finetuned model, with its head.
        dataset: it was finetuned on.
        settings: with which it was.

    Raises:
        BadModel: it cannot be loaded.
    """
    task = task_named(dataset.task)
    as_it_is = settings.model_copy(update={"lora": False, "freeze": None, "dp": False})
    with named_failures(), fitting_threads():
        from coldfusion_shared.finetune.training import Training

        return Training(folder, dataset, as_it_is, task).score(dataset.test)[task.metric]


@contextmanager
def _tidied(checkpoints: Checkpoints | None) -> Iterator[None]:
    """Remove the checkpoints of a training that leads nowhere."""
    try:
        yield
    except TrainingFailed:
        if checkpoints and processes.is_first():
            checkpoints.clear()
        raise


@contextmanager
def _written(output: Path) -> Iterator[Path | None]:
    """Yield the folder to write to; null in the processes that do not write."""
    if not processes.is_first():
        yield None
        return
    with whole_folder(output) as folder:
        yield folder
