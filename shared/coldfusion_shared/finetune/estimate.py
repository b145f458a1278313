"""What a finetuning would take, measured on a few of its real steps."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from coldfusion_shared.finetune.failures import named_failures
from coldfusion_shared.finetune.threads import fitting_threads
from coldfusion_shared.tasks import task_named

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import TextDataset
    from coldfusion_shared.finetune.settings import FinetuneSettings

# The first step warms up, and has the longest examples: it tells the memory, not the time.
MEASURED_STEPS = 8
ENOUGH_SECONDS = 20.0
SCORED_EXAMPLES = 32


@dataclass(frozen=True)
class Estimate:
    """
    What a finetuning would take.

    Attributes:
        metric: what the scores would be, in percent.
        precision: what it would compute with.
        steps: at most; early stopping may end it before.
        step_examples: that a step learns from.
        step_seconds: of a usual step.
        seconds: of all steps and scorings.
        memory: peak in bytes while the steps were measured.
        memory_of: whose: the GPU's, or this process's.
    """

    metric: str
    precision: str
    steps: int
    step_examples: int
    step_seconds: float
    seconds: float
    memory: int
    memory_of: Literal["GPU", "process"]


def estimate(
    base: Path,
    dataset: TextDataset,
    settings: FinetuneSettings,
    say: Callable[[str], None] = lambda sentence: None,
) -> Estimate:
    """
    Take a few real steps and throw them away; nothing is written.

    Args:
        base: a transformers folder.
        dataset: what would be learnt from.
        settings: how.
        say: told in a sentence what a person should know, such as that the memory is too small.

    Raises:
        BadModel, InvalidRequest, TrainingFailed: as `finetune` would.
    """
    task = task_named(dataset.task)
    with named_failures(), fitting_threads():
        from coldfusion_shared.finetune.callbacks import Stopwatch
        from coldfusion_shared.finetune.training import Training

        watch = Stopwatch(MEASURED_STEPS, ENOUGH_SECONDS)
        unscored = settings.model_copy(update={"early_stopping": False})
        training = Training(base, dataset, unscored, task, say)
        _forget_peak()
        training.run(lambda done, total, loss: None, None, watch)
        memory, memory_of = _peak()
        sample = dataset.validation.take(range(min(SCORED_EXAMPLES, len(dataset.validation))))
        begun = time.monotonic()
        training.score(sample)
        scoring = (time.monotonic() - begun) / len(sample)
    step = median(watch.seconds[1:] or watch.seconds)
    evaluations = 1 + (round(settings.epochs) if settings.early_stopping else 0)
    scored = evaluations * len(dataset.validation) + len(dataset.test)
    return Estimate(
        metric=task.metric,
        precision=training.precision,
        steps=watch.steps,
        step_examples=training.batches.step,
        step_seconds=step,
        seconds=step * watch.steps + scoring * scored,
        memory=memory,
        memory_of=memory_of,
    )


def _forget_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak() -> tuple[int, Literal["GPU", "process"]]:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated(), "GPU"
    return _peak_of_process(), "process"


def _peak_of_process() -> int:
    try:
        import resource
    except ImportError:  # Windows
        import psutil  # accelerate needs it, too

        info: Any = psutil.Process().memory_info()
        return int(info.peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # In bytes on macOS, in kilobytes elsewhere.
    return peak if sys.platform == "darwin" else peak * 1024
