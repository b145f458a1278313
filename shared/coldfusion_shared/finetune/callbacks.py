"""What watches a training: progress for a person, and a loss that is no number any more."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from coldfusion_shared.errors import TrainingFailed


class ProgressCallback(TrainerCallback):
    """Reports every step, and ends a training that cannot lead anywhere."""

    def __init__(self, progress: Callable[[int, int, float], None]) -> None:
        """Report to `progress`: steps done, steps in all, latest loss."""
        self.progress = progress
        self.loss = math.nan

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Keep the loss, which the Trainer averages over some steps."""
        if logs is None or "loss" not in logs:
            return
        self.loss = float(logs["loss"])
        if not math.isfinite(self.loss):
            raise TrainingFailed(
                f"The loss is {self.loss} at step {state.global_step}; training cannot go on.",
                hint=f"Use a lower learning rate, such as --lr {args.learning_rate / 5:.0e}.",
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report the step."""
        self.progress(state.global_step, state.max_steps, self.loss)
