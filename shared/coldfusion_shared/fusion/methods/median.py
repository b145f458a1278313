"""The median of the updates, coordinate by coordinate."""

from __future__ import annotations

import numpy as np

from coldfusion_shared.fusion.methods import Block, CoordinateMethod, Parameters, methods
from coldfusion_shared.fusion.order import ranked_rows
from coldfusion_shared.fusion.updates import Floats


class MedianParameters(Parameters):
    """The median has none."""


def median(_: MedianParameters, block: Block) -> Floats:
    """Return the middle value, or the mean of the two middle ones, (n,)."""
    count = len(block.stack)
    low, high = (count - 1) // 2, count // 2
    rows = ranked_rows(block.stack, low, high + 1)
    if low == high:
        return rows[0]
    # Halves first: the sum of two large values could leave the range of float32.
    for row in rows:
        row *= np.float32(0.5)
    rows[0] += rows[1]
    return rows[0]


methods.register("median")(
    CoordinateMethod(
        summary="median of the updates, coordinate by coordinate",
        paper="https://arxiv.org/abs/1803.01498",
        parameters=MedianParameters,
        combine=median,
    )
)
