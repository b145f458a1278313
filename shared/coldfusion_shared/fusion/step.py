"""How far a fuse moves its base, and what a cap leaves of that."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt

# Room for rounding, so that a gate whose limit is the cap lets a step pass that was cut to it.
ROOM = 1 - 2.0**-40


@dataclass(frozen=True)
class Squares:
    """
    Sums of squares over a part of the body, float64; tied tensors count once.

    Attributes:
        base: of what the step is added to.
        step: of the whole step, before it is capped.
        update: of the fused update that the optimizer got; 0 without an optimizer.
    """

    base: float = 0.0
    step: float = 0.0
    update: float = 0.0

    def __add__(self, other: Squares) -> Squares:
        return Squares(self.base + other.base, self.step + other.step, self.update + other.update)

    @property
    def finite(self) -> bool:
        """Whether all of them are: no infinity, no NaN."""
        return self.base + self.step + self.update < inf


@dataclass(frozen=True)
class Cap:
    """
    What a cap on the step leaves.

    Attributes:
        update: factor of the fused update, before an optimizer sees it.
        step: factor of the whole step.
    """

    update: float = 1.0
    step: float = 1.0


@dataclass(frozen=True)
class Step:
    """
    How far a fuse moved its base: the new weights less the old ones, before they are rounded.

    Attributes:
        base_norm: Euclidean norm of what the step was added to, over the tensors that are fused.
        norm: of the step that was taken.
        factor: what a cap left: the factor of the whole step times that of the fused update before
            an optimizer got it; 1: everything.
    """

    base_norm: float
    norm: float
    factor: float = 1.0

    @classmethod
    def of(cls, squares: Squares, cap: Cap | None = None) -> Step:
        """Return the step of which these are the sums of squares, before `cap` scales it."""
        left = cap or Cap()
        return cls(sqrt(squares.base), left.step * sqrt(squares.step), left.update * left.step)

    @property
    def relative_norm(self) -> float:
        """The step's norm over the base's; infinite where a base of zeros was moved."""
        if not self.norm:
            return 0.0
        return self.norm / self.base_norm if self.base_norm else inf


def within(limit: float, length: float) -> float:
    """Return the factor that makes `length` no longer than `limit`: 1 where it is not."""
    # What is no number stays as it is: whoever writes it finds it.
    return ROOM * limit / length if length > limit else 1.0
