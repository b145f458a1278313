"""The data sets of a folder, and the parts of them that contributors have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeVar

from coldfusion_shared.data import TextDataset, load_dataset
from coldfusion_shared.data.dataset import Split
from coldfusion_shared.data.sampling import stratified_order
from coldfusion_shared.errors import InvalidRequest

Item = TypeVar("Item")

TASK = "classification"
# Finetuning scores these two; what contributors reach themselves, nobody reads.
SCORED = 16
# Which examples are scored, whatever the seed.
SUITE_SEED = 13
# Added to the seeds of contributors' parts: scores draw their training examples by a line's seed,
# too, and would otherwise begin with the very examples that its contributors have learnt.
PARTS = 2**20


class Data:
    """Data sets by name."""

    def __init__(self, folder: Path, names: tuple[str, ...] | None, judged: int = 0) -> None:
        """
        Use the data sets in `folder`, each a folder with a file a split.

        Args:
            folder: of all data sets.
            names: which of them; null: all.
            judged: validation examples of each, at most, of which every second one is what bases
                are judged by; nothing is chosen by these.

        Raises:
            InvalidRequest: there is none, or not one of those.
        """
        self.folder, self.judged = folder, judged
        there = sorted(path.parent.name for path in folder.glob("*/train.*"))
        self.names = there if names is None else list(names)
        if missing := [name for name in self.names if name not in there]:
            raise InvalidRequest(
                f"There is no data set {missing[0]!r} in {folder}.", hint=f"There are: {there}"
            )
        if not self.names:
            raise InvalidRequest(f"There are no data sets in {folder}.")
        self.part = cache(self._part)
        self.dataset = cache(self._dataset)

    def largest(self) -> str:
        """Return the name of the data set with the most training examples."""
        return max(self.names, key=lambda name: len(self.dataset(name).train))

    def digests(self) -> dict[str, str]:
        """Return each data set's digest."""
        return {name: self.dataset(name).digest for name in self.names}

    def _dataset(self, name: str) -> TextDataset:
        return load_dataset(str(self.folder / name), task=TASK)

    def _part(
        self, name: str, examples: int, seed: int, turn: int = 0, scored: int = SCORED
    ) -> TextDataset:
        """
        Return what one contributor has of a data set.

        Args:
            name: of it.
            examples: of the train part, at most.
            seed: of their order.
            turn: how many parts others had before: they are different examples, until all were
                had, then the first ones again.
            scored: examples of validation and test part.
        """
        whole = self.dataset(name)
        order = stratified_order(whole.train.strata, PARTS + seed)
        size = min(examples, len(order))
        start = (turn * size) % len(order)
        chosen = (order + order)[start : start + size]
        part = replace(whole, train=whole.train.take(sorted(chosen)))
        if self.judged:
            part = replace(part, validation=self._not_judged(whole.validation))
        return part.capped(validation=scored, test=scored, seed=seed)

    def _not_judged(self, validation: Split) -> Split:
        judged = set(halves(validation, self.judged)[0])
        rest = [index for index in range(len(validation)) if index not in judged]
        # Of a single example nothing can be chosen that matters.
        return validation.take(rest) if rest else validation


def halves(validation: Split, most: int) -> tuple[list[int], list[int]]:
    """
    Return which of at most so many examples bases are judged by, and which something is chosen by.

    Of a single example both halves are it.
    """
    indices = sorted(stratified_order(validation.strata, SUITE_SEED)[:most])
    return indices[::2], indices[1::2] or indices


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Return at most `count` of `items`, evenly spaced."""
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def steps_of(examples: int, epochs: float, batch_size: int) -> int:
    """Return the steps of a finetuning, as the Trainer counts them."""
    return max(1, math.ceil(math.ceil(examples / batch_size) * epochs))
