"""What is measured of one chunk of values, once, for all checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coldfusion_shared.weights.header import TensorSpan

if TYPE_CHECKING:
    from coldfusion_shared.screening.sketch import Part

# No training moves a weight so far. What is larger may leave float32 when methods scale it.
FARTHEST = 2.0**32


@dataclass(frozen=True)
class Chunk:
    """
    The numbers of one chunk of a tensor of the body that the contribution has.

    Attributes:
        span: the tensor, as the base describes it.
        start: first element of the flattened tensor.
        stop: the element after the last one.
        finite: whether the finetuned values are finite in the base's dtype. If not, the numbers
            below may be NaN or infinite.
        low: smallest value of the update.
        high: largest value of the update.
        changed: number of values of the update that are not zero.
        squares: sum of the squares of the update.
        base_squares: sum of the squares of the base.
        product: inner product of update and base.
        constant: what all finetuned values are, up to rounding; null: they differ.
        base_constant: whether the base's values are all the same, too; told only where the
            finetuned ones are.
        tag: keyed digest of the update's float32 values; empty where nothing changed.
        part: of the sketch; null where nothing changed, or where a value is not finite or moved by
            more than `FARTHEST`.
    """

    span: TensorSpan
    start: int
    stop: int
    finite: bool
    low: float
    high: float
    changed: int
    squares: float
    base_squares: float
    product: float
    constant: float | None
    base_constant: bool
    tag: bytes
    part: Part | None

    @property
    def elements(self) -> int:
        """Number of values."""
        return self.stop - self.start

    @property
    def largest(self) -> float:
        """The largest magnitude of the update."""
        return max(self.high, -self.low)
