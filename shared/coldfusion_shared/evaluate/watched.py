"""A task that remembers what a model said, example by example."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from coldfusion_shared.errors import EvaluationFailed
from coldfusion_shared.tasks import Scoring, Task
from coldfusion_shared.tasks.labelled import first

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import Split
    from coldfusion_shared.evaluate.results import Values


class WatchedTask:
    """
    A task with one prediction an example, its outputs noted in the order of the split.

    All else is the task's own, but that `metric`, which also chooses the best epoch, may be
    another of its scores.
    """

    def __init__(self, task: Task, metric: str) -> None:
        """Watch `task`."""
        self.task, self.metric = task, metric
        self.outputs: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def scoring(self, tokenizer: Any, split: Split, max_length: int) -> Scoring:
        """Score as the task does, and note the model's outputs."""
        import numpy as np

        examples = self.task.encode(tokenizer, split, max_length)
        # By length, so that hardly anything is padding.
        order = sorted(range(len(examples)), key=lambda row: len(examples[row]["input_ids"]))
        score = self.task.scoring(tokenizer, split, max_length).score

        def noted(predictions: Any, labels: Any) -> dict[str, float]:
            outputs = np.asarray(first(predictions))
            self.outputs = np.empty_like(outputs)
            self.outputs[order] = outputs
            return score(predictions, labels)

        return Scoring([examples[row] for row in order], noted)

    def guesses(self) -> Values:
        """
        Return the guesses for the split that was scored last: a class or a number an example.

        Raises:
            EvaluationFailed: an output is no finite number.
        """
        if not all(map(math.isfinite, self.outputs.reshape(-1).tolist())):
            raise EvaluationFailed(
                "The finetuned model says what is no finite number.",
                hint="Use a lower learning rate in the suite's training settings.",
            )
        one = self.outputs.reshape(len(self.outputs), -1)
        values: list[int | float] = (one[:, 0] if one.shape[1] == 1 else one.argmax(1)).tolist()
        return tuple(values)
