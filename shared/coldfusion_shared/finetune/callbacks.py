"""What watches a training. Imports transformers, so it is imported lazily itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from coldfusion_shared.finetune import processes
from coldfusion_shared.finetune.checkpoints import Checkpoints
from coldfusion_shared.finetune.collate import Reproducible
from coldfusion_shared.finetune.failures import diverged
from coldfusion_shared.finetune.frozen import learning
from coldfusion_shared.finetune.order import EpochOrder

# The paper's gain: what is less does not count as one.
MIN_GAIN_PERCENT = 0.1
# The paper waits for 256k examples. An epoch at home is a thousand: with a fresh head and a small
# validation part, one that gains nothing says little, and 800 examples stopped half learnt.
PATIENCE_EPOCHS = 2
# Several processes ask each other, which costs more than looking at a clock.
STEPS_BETWEEN_QUESTIONS = 50


class ProgressCallback(TrainerCallback):
    """Reports every step, and ends a training that cannot lead anywhere."""

    def __init__(
        self, progress: Callable[[int, int, float], None], precision: str = "fp32"
    ) -> None:
        """Report to `progress`: steps done, steps in all, the step's loss."""
        self.progress, self.precision = progress, precision

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Look at a step's loss; what is logged at the end has none."""
        if logs is None or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise diverged(state.global_step, args.learning_rate, self.precision)
        if processes.is_first():
            self.progress(state.global_step, state.max_steps, float(logs["loss"]))


class BestWeights(TrainerCallback):
    """
    Early stopping that keeps the best weights in memory, those that learn.

    The Trainer's own writes a checkpoint an epoch, which asks for disk and leaves folders behind.
    """

    def __init__(self) -> None:
        """Begin without a best score."""
        self.score = -math.inf
        self.idle_epochs = 0
        self.weights: dict[str, Any] = {}

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, model: Any = None, **_: Any
    ) -> None:
        """Keep the weights if they are the best so far; stop when nothing is gained any more."""
        gain = metrics["eval_score"] - self.score
        if gain > 0:
            self.score = metrics["eval_score"]
            self.weights = {
                name: value.detach().to("cpu", copy=True) for name, value in learning(model).items()
            }
        self.idle_epochs = self.idle_epochs + 1 if gain < MIN_GAIN_PERCENT else 0
        if self.idle_epochs == PATIENCE_EPOCHS:
            control.should_training_stop = True


class Epochs(TrainerCallback):
    """Tells what depends on the epoch which one begins."""

    def __init__(self, *told: EpochOrder | Reproducible) -> None:
        """Tell these."""
        self.told = told

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell the number of the epoch, which a resumed training may begin in the middle of."""
        for one in self.told:
            one.epoch = int(state.epoch)


class Clock(TrainerCallback):
    """Asks for a checkpoint when it is time for one."""

    def __init__(self, checkpoints: Checkpoints, size: int) -> None:
        """Look at the clock of `checkpoints`, each of which has about `size` bytes."""
        self.checkpoints, self.size = checkpoints, size

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for one within an epoch; its last step waits for the epoch's evaluation."""
        asked = processes.count() == 1 or state.global_step % STEPS_BETWEEN_QUESTIONS == 0
        last = float(state.epoch).is_integer() or control.should_training_stop
        if asked and not last:
            control.should_save = self._due(epoch_ends=False)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for one at the end of an epoch, after its evaluation."""
        control.should_save = self._due(epoch_ends=True)

    def _due(self, *, epoch_ends: bool) -> bool:
        return bool(processes.from_first(self.checkpoints.due(self.size, epoch_ends=epoch_ends)))


class Stopwatch(TrainerCallback):
    """Measures a training's first steps, and ends it then."""

    def __init__(self, steps: int, enough: float) -> None:
        """Measure `steps` steps, or one more when `enough` seconds have passed."""
        self.wanted, self.enough = steps, enough
        self.seconds: list[float] = []
        self.steps = self.epochs = 0
        self.began = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin to measure."""
        self.steps, self.epochs = state.max_steps, state.num_train_epochs
        self.began = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """End to measure: what a GPU has been told to do is done when its loss is known."""
        if "loss" in (logs or {}):
            self.seconds.append(time.monotonic() - self.began)
            done = len(self.seconds) >= self.wanted or sum(self.seconds) >= self.enough
            control.should_training_stop = done or control.should_training_stop
