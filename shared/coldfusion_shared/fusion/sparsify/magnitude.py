"""Keep the values of a tensor whose magnitude lies in a band: the largest, or all but outliers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from coldfusion_shared.fusion.sparsify.rank import kth_largest
from coldfusion_shared.fusion.updates import (
    MAX_BLOCK_ELEMENTS,
    Floats,
    Scratch,
    UpdateReader,
)
from coldfusion_shared.weights.header import TensorSpan

# The smallest and the largest magnitude that are kept.
Band = tuple[np.float32, np.float32]


@dataclass(frozen=True)
class MagnitudeBand:
    """
    Drop the `outliers` largest magnitudes of a tensor, keep the next ones, drop the rest.

    Of n values ``int(density * n)`` are kept, but at least one, and below them
    ``int(outliers * n)`` dropped at the top, as far as the density leaves room. Values of exactly
    the first or the last magnitude that is kept are kept, too, so no order decides between equals.
    """

    density: float
    outliers: float = 0.0

    def prepare(self, reader: UpdateReader, span: TensorSpan, scratch: Scratch) -> Band:
        """Find the band of magnitudes that are kept."""
        everything = (np.float32(0), np.float32(np.inf))
        if self.density >= 1 or not span.elements:
            return everything
        kept = max(1, int(self.density * span.elements))
        top = min(int(self.outliers * span.elements), span.elements - kept)
        values = np.empty(MAX_BLOCK_ELEMENTS, np.float32)

        def stream(first: int, last: int) -> Iterator[Floats]:
            for start in range(first, last, values.size):
                stop = min(start + values.size, last)
                out = values[: stop - start]
                reader.read(span, start, stop, out, scratch)
                yield out

        ranks = [top + kept, top + 1] if top else [kept]
        lowest, *highest = kth_largest(stream, span.elements, ranks)
        return lowest, highest[0] if highest else everything[1]

    def read(
        self,
        reader: UpdateReader,
        prepared: Band,
        span: TensorSpan,
        start: int,
        stop: int,
        out: Floats,
        scratch: Scratch,
    ) -> None:
        """Read the span and put zeros where the magnitude is outside the band."""
        reader.read(span, start, stop, out, scratch)
        lowest, highest = prepared
        magnitudes = np.abs(out)
        kept = magnitudes >= lowest
        if highest < np.inf:
            kept &= magnitudes <= highest
        # A product and no assignment: what is not finite becomes NaN, and is found.
        np.multiply(out, kept, out=out)
