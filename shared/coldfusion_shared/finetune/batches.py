"""How the examples of a step are shared out among processes, and among the batches of each."""

from __future__ import annotations

from dataclasses import dataclass, replace

# Without gradients there is room for more at once, up to so many tokens.
SCORING_BATCH = 64
SCORING_TOKENS = 32_768


@dataclass(frozen=True)
class Batches:
    """
    One step's examples.

    Attributes:
        size: examples that a process computes at once.
        accumulation: batches of a process that make one step.
        processes: that share a step.
    """

    size: int
    accumulation: int
    processes: int

    @property
    def step(self) -> int:
        """Examples of a step, of all processes together."""
        return self.size * self.accumulation * self.processes

    def smaller(self) -> Batches | None:
        """Return the same step in batches of half the size or less; null if they hold one each."""
        if self.size == 1:
            return None
        own = self.size * self.accumulation
        size = _divisor(own, self.size // 2)
        return replace(self, size=size, accumulation=own // size)


def share_out(batch: int, accumulation: int, processes: int) -> Batches:
    """
    Return batches of at most `batch` examples that together make the step that was asked for.

    A step is `batch` * `accumulation` examples however many processes there are, so that the
    result does not depend on the machine; only where they cannot be shared evenly it grows to the
    next number that can.
    """
    own = -(-batch * accumulation // processes)
    size = _divisor(own, min(batch, own))
    return Batches(size, own // size, processes)


def scoring_batch(max_length: int) -> int:
    """Return how many examples of up to `max_length` tokens are scored at once."""
    return max(1, min(SCORING_BATCH, SCORING_TOKENS // max_length))


def _divisor(number: int, limit: int) -> int:
    return next(size for size in range(limit, 0, -1) if number % size == 0)
