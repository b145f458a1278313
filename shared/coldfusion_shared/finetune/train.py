"""Finetune a base on a data set, with transformers' Trainer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coldfusion_shared.finetune.failures import named_failures
from coldfusion_shared.finetune.output import whole_folder
from coldfusion_shared.tasks import choose_task

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
        seconds: wall time of the training alone.
        examples: examples of the training part.
    """

    task: str
    metric: str
    validation: float
    test: float
    steps: int
    seconds: float
    examples: int


def finetune(
    base: Path,
    dataset: TextDataset,
    settings: FinetuneSettings,
    output: Path,
    progress: Progress = lambda done, total, loss: None,
) -> FinetuneResult:
    """
    Finetune the model in the folder `base` and write it, with its head, into the folder `output`.

    Args:
        base: a transformers folder.
        dataset: what to learn from.
        settings: how.
        output: appears whole or not at all; an earlier one is replaced.
        progress: called after each step with steps done, steps in all, and the latest loss; what
            it raises ends the training.

    Raises:
        BadModel: the base or its tokenizer cannot be loaded.
        TrainingFailed: the loss is no number any more, or the memory does not suffice.
        StorageFull: no room for the finetuned model.
    """
    task = choose_task(dataset)
    with named_failures(), whole_folder(output) as folder:
        from coldfusion_shared.finetune.training import Training

        training = Training(base, dataset, settings, task)
        started = time.monotonic()
        steps = training.run(progress)
        seconds = time.monotonic() - started
        validation, test = training.score(dataset.validation), training.score(dataset.test)
        training.save(folder)
    return FinetuneResult(
        task.name, task.metric, validation, test, steps, seconds, len(dataset.train)
    )
