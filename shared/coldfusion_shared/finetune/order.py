"""The order in which examples are learnt from: a function of seed and epoch alone."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import Sampler

# Sorting more at once would hardly save padding, but make like examples meet again and again.
WINDOW_STEPS = 50


class EpochOrder(Sampler[int]):
    """
    A fresh random order each epoch, in which the examples of a step are of like length.

    Nothing is taken from torch's own random numbers: a training that is resumed in the middle of
    an epoch finds the same order again.
    """

    def __init__(self, lengths: Sequence[int], step: int, seed: int, *, grouped: bool) -> None:
        """
        Order examples of these lengths.

        Args:
            lengths: tokens of each example.
            step: examples of a step.
            seed: of the order.
            grouped: whether examples of like length share a step.
        """
        self.lengths, self.step, self.seed, self.grouped = lengths, step, seed, grouped
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Make the next order that of `epoch`."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        drawn = random.Random(f"{self.seed}/{self.epoch}")
        indices = list(range(len(self.lengths)))
        drawn.shuffle(indices)
        return iter(self._grouped(indices, drawn) if self.grouped else indices)

    def _grouped(self, indices: list[int], drawn: random.Random) -> list[int]:
        # The last, smaller step stays last: steps are cut off the order by their size.
        whole = len(indices) - len(indices) % self.step
        steps: list[list[int]] = []
        for start in range(0, whole, WINDOW_STEPS * self.step):
            window = indices[start : min(start + WINDOW_STEPS * self.step, whole)]
            window.sort(key=self._length)
            steps += [window[i : i + self.step] for i in range(0, len(window), self.step)]
        drawn.shuffle(steps)
        if steps:
            # What asks for the most memory goes first: if it is too much, that shows at once.
            costly = max(range(len(steps)), key=lambda i: max(map(self._length, steps[i])))
            steps[0], steps[costly] = steps[costly], steps[0]
        return [index for step in steps for index in step] + indices[whole:]

    def _length(self, index: int) -> int:
        return self.lengths[index]


def length_of(example: dict[str, Any]) -> int:
    """Return the tokens of an encoded example; of several texts, of the longest."""
    tokens = example["input_ids"]
    return len(tokens) if not tokens or isinstance(tokens[0], int) else max(map(len, tokens))
