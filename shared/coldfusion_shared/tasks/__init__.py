"""Kinds of text tasks, one file each: which columns, which model, which metric."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from coldfusion_shared.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path

    from coldfusion_shared.data.dataset import Split, TextDataset
    from coldfusion_shared.data.table import Table
    from coldfusion_shared.tasks.architectures import Architecture
    from coldfusion_shared.tasks.roles import Role

# From the most particular to the most general; the first one that fits the data is taken.
ORDER = (
    *("instruction", "multiple-choice", "question-answering", "token-classification", "seq2seq"),
    *("multi-label", "regression", "classification"),
    *("masked-language-modelling", "causal-language-modelling"),
)


@dataclass(frozen=True)
class Scoring:
    """
    How a model is scored on a split.

    Attributes:
        examples: as the model takes them, in any order that is quick (by length).
        score: from predictions and label ids, as transformers' ``Trainer.predict`` gives them for
            these examples, to metrics in percent by name, the task's `metric` among them.
    """

    examples: Sequence[dict[str, Any]]
    score: Callable[[Any, Any], dict[str, float]]


class Task(Protocol):
    """
    What reading data and finetuning have to know of a kind of task.

    A task may have a method ``reduce(logits, labels)`` besides: from a batch's tensors to what its
    score needs of them, so that all outputs are never in memory together. Predictions are then
    what it returned. And it may have `heads`: by architecture the auto class of transformers that
    its models are of, so that a base that there is none for is refused before it is downloaded.
    """

    @property
    def name(self) -> str:
        """What it is called, in kebab case."""

    @property
    def metric(self) -> str:
        """The score that counts, in percent; larger is better."""

    @property
    def roles(self) -> tuple[Role, ...]:
        """The columns that it reads; what goes with the first one may depend on its name."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns of a split that make an example what it is: copies have the same ones."""

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        """What bases can learn it: finetuned, they still have all that they had."""

    @property
    def generates(self) -> bool:
        """Whether it is scored on what the model writes, token by token."""

    def fits(
        self, table: Table, columns: Mapping[str, str], architecture: Architecture | None
    ) -> bool:
        """
        Return whether the data are of this kind; asked only if all required roles were found.

        Where the data alone do not decide between tasks, the base does. Where they do, those for
        which it is no base are refused later.

        Args:
            table: the training data; a few cells of another kind are mistakes, for `parse` to tell.
            columns: the columns of the roles that were found.
            architecture: of the base; null: not known yet.
        """

    def parse(
        self, tables: Mapping[str, Table], columns: Mapping[str, str]
    ) -> tuple[tuple[str, ...], dict[str, Split]]:
        """
        Return the labels' names, () without any, and a split for each table.

        Columns hold texts, numbers, and tuples and dicts of them. Raises `BadData` with where.
        """

    def check(self, dataset: TextDataset) -> None:
        """Refuse (`BadData`) a data set that came out of the splitting without what it needs."""

    def build_model(self, base: Path, dataset: TextDataset) -> Any:
        """Return the base with a new head for the data set, in float32; raises `BadModel`."""

    def encode(self, tokenizer: Any, split: Split, max_length: int) -> Sequence[dict[str, Any]]:
        """Return the split's examples as the model learns from them, without padding."""

    def scoring(self, tokenizer: Any, split: Split, max_length: int) -> Scoring:
        """Return how a model is scored on the split."""

    def collator(self, tokenizer: Any, model: Any) -> Callable[[list[dict[str, Any]]], Any]:
        """Return what makes one batch of tensors of some encoded examples."""


tasks: Registry[Task] = Registry("task", "coldfusion.tasks")


def task_named(name: str) -> Task:
    """Return the task called `name`; raises `UnknownName`."""
    return discover()[name]


def in_order() -> tuple[Task, ...]:
    """Return all tasks as they are tried on data; others' own come before the built-in ones."""
    registry = discover()
    own = [name for name in registry if name not in ORDER]
    return tuple(registry[name] for name in (*own, *(n for n in ORDER if n in registry)))


def discover() -> Registry[Task]:
    """Return the registry after importing every task."""
    tasks.discover(sys.modules[__name__])
    return tasks
