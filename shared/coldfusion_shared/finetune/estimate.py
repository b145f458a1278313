"""What a finetuning would take, measured on a few of its real steps."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from coldfusion_shared.finetune.batches import scoring_batch
from coldfusion_shared.finetune.failures import named_failures
from coldfusion_shared.finetune.threads import fitting_threads
from coldfusion_shared.tasks import task_named

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import Split, TextDataset
    from coldfusion_shared.finetune.settings import FinetuneSettings

# The first step warms up, and has the longest examples: it tells the memory, not the time.
MEASURED_STEPS = 8
ENOUGH_SECONDS = 20.0
# What a first scoring imports and prepares is not to be measured.
WARM_UP_EXAMPLES = 4
# Beside so long a scoring, what it costs to begin one is nothing.
LONG_SECONDS = 5.0


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
        seconds: of all steps, of the scorings at the ends of epochs, and of the two in the end.
        memory: peak in bytes while the steps were measured, and what early stopping keeps besides.
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
        if settings.early_stopping and memory_of == "process":
            memory += _best_bytes(training.model)
        cost = _measured(training.score, dataset, scoring_batch(settings.max_length))
    step = median(watch.seconds[1:] or watch.seconds)
    validations = 1 + (watch.epochs if settings.early_stopping else 0)
    scoring = validations * cost.of(len(dataset.validation)) + cost.of(len(dataset.test))
    return Estimate(
        metric=task.metric,
        precision=training.precision,
        steps=watch.steps,
        step_examples=training.batches.step,
        step_seconds=step,
        seconds=step * watch.steps + scoring,
        memory=memory,
        memory_of=memory_of,
    )


@dataclass(frozen=True)
class ScoringCost:
    """Seconds of a scoring: to begin one, and for each example."""

    beginning: float
    each: float

    def of(self, examples: int) -> float:
        """Return the seconds of scoring so many examples."""
        return self.beginning + self.each * examples


def _measured(score: Callable[[Split], object], dataset: TextDataset, batch: int) -> ScoringCost:
    """Time scorings of two sizes: of one batch and of two, where there are as many examples."""
    split = max(dataset.validation, dataset.test, key=len)
    most = min(2 * batch, len(split))
    fewer = -(-most // 2)
    _seconds(score, split, min(WARM_UP_EXAMPLES, most))
    one = _seconds(score, split, fewer)
    if one > LONG_SECONDS or fewer == most:
        return ScoringCost(0.0, one / fewer)
    each = max(0.0, _seconds(score, split, most) - one) / (most - fewer)
    return ScoringCost(max(0.0, one - each * fewer), each)


def _seconds(score: Callable[[Split], object], split: Split, examples: int) -> float:
    sample = split.take(range(examples))
    begun = time.monotonic()
    score(sample)
    return time.monotonic() - begun


def _best_bytes(model: Any) -> int:
    """Return the size of a copy of what learns: that of the best epoch, never on a GPU."""
    from coldfusion_shared.finetune.frozen import learning

    return sum(value.numel() * value.element_size() for value in learning(model).values())


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
