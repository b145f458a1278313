"""Steps whose examples are drawn as the accounting of privacy supposes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class PoissonSteps(Sampler[list[int]]):
    """
    An epoch of steps, each of which takes every example with the same chance, apart from the rest.

    A step may have no example at all. What is drawn comes from the system, and never from the
    seed: that is told to everybody, and who knows which examples had a part in a step learns more.
    """

    def __init__(self, examples: int, chance: float, steps: int) -> None:
        """
        Draw from so many examples.

        Args:
            examples: in all.
            chance: of each of them to be in a step.
            steps: of an epoch.
        """
        self.examples, self.chance, self.steps = examples, chance, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self.steps):
            drawn = np.frombuffer(os.urandom(8 * self.examples), dtype=np.uint64)
            # 53 bits: what a float64 between 0 and 1 can tell apart.
            uniform = (drawn >> np.uint64(11)) * 2.0**-53
            yield np.flatnonzero(uniform < self.chance).tolist()
