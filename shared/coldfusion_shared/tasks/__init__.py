"""Kinds of text tasks, one file each: which model, which metric."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from coldfusion_shared.errors import BadData
from coldfusion_shared.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from coldfusion_shared.data.dataset import Split, TextDataset


class Task(Protocol):
    """What finetuning has to know of a kind of task."""

    name: str
    metric: str

    def fits(self, dataset: TextDataset) -> bool:
        """Return whether the data set is of this kind."""

    def build_model(self, base: Path, dataset: TextDataset) -> Any:
        """Return the base with a new head for the data set, in float32; raises `BadModel`."""

    def encode(self, tokenizer: Any, split: Split, max_length: int) -> Sequence[dict[str, Any]]:
        """Return the split's examples as the model takes them."""

    def collator(self, tokenizer: Any) -> Callable[[list[dict[str, Any]]], Any]:
        """Return what makes one batch of tensors of some encoded examples."""

    def score(self, outputs: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> float:
        """Return the metric of the model's outputs, in percent; larger is better."""


tasks: Registry[Task] = Registry("task", "coldfusion.tasks")


def choose_task(dataset: TextDataset, name: str | None = None) -> Task:
    """
    Return the task called `name`, or the first one that fits the data set.

    Raises:
        UnknownName: there is no task of that name.
        BadData: none fits.
    """
    tasks.discover(sys.modules[__name__])
    if name is not None:
        return tasks[name]
    for candidate in tasks:
        if tasks[candidate].fits(dataset):
            return tasks[candidate]
    raise BadData(
        f"No kind of task fits the data set {dataset.name!r}.", hint=f"Known: {', '.join(tasks)}."
    )
