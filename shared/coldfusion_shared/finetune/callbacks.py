"""What watches a training. Imports transformers, so it is imported lazily itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from coldfusion_shared.finetune.failures import diverged

# The paper's gain: what is less does not count as one.
MIN_GAIN_PERCENT = 0.1
# The paper waits for 256k examples. An epoch at home is a thousand: with a fresh head and a small
# validation part, one that gains nothing says little, and 800 examples stopped half learnt.
PATIENCE_EPOCHS = 2


class ProgressCallback(TrainerCallback):
    """Reports every step, and ends a training that cannot lead anywhere."""

    def __init__(self, progress: Callable[[int, int, float], None]) -> None:
        """Report to `progress`: steps done, steps in all, the step's loss."""
        self.progress = progress

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Look at a step's loss; what is logged at the end has none."""
        if logs is None or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise diverged(state.global_step, args.learning_rate)
        self.progress(state.global_step, state.max_steps, float(logs["loss"]))


class BestWeights(TrainerCallback):
    """
    Early stopping that keeps the best weights in memory.

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
                name: value.detach().to("cpu", copy=True)
                for name, value in model.state_dict().items()
            }
        self.idle_epochs = self.idle_epochs + 1 if gain < MIN_GAIN_PERCENT else 0
        if self.idle_epochs == PATIENCE_EPOCHS:
            control.should_training_stop = True
