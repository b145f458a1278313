"""Bulyan: Krum chooses the updates, a trimmed mean around the median fuses them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coldfusion_shared.fusion.methods import (
    Block,
    CoordinateMethod,
    Facts,
    methods,
)
from coldfusion_shared.fusion.methods.krum import KrumParameters, krum_order
from coldfusion_shared.fusion.order import ranked_rows
from coldfusion_shared.fusion.updates import Doubles


class BulyanParameters(KrumParameters):
    """Parameters of `bulyan`."""


def minimum(parameters: BulyanParameters) -> int:
    """Return 4 f + 3, below which f hostile contributions can win."""
    return 4 * (parameters.byzantine or 0) + 3


def select(parameters: BulyanParameters, facts: Facts) -> Sequence[int]:
    """Return K - 2 f updates: the one that Krum chooses, again and again, of those that remain."""
    byzantine = _byzantine(parameters, facts.count)
    distances = facts.known_gram.squared_distances
    remaining = list(range(facts.count))
    chosen: list[int] = []
    while len(chosen) < facts.count - 2 * byzantine:
        ids = [facts.ids[place] for place in remaining]
        order = krum_order(distances[np.ix_(remaining, remaining)], byzantine, ids)
        chosen.append(remaining.pop(order[0]))
    return sorted(chosen)


def nearest_mean(parameters: BulyanParameters, block: Block) -> Doubles:
    """Return the mean of the values of each coordinate that are nearest to their median, (n,)."""
    chosen = len(block.stack)
    nearest = chosen - 2 * _byzantine(parameters, block.count)
    rows = np.stack(ranked_rows(block.stack, 0, chosen))
    middle = rows[(chosen - 1) // 2] * np.float32(0.5) + rows[chosen // 2] * np.float32(0.5)
    # The nearest to the median are neighbours in rank: the best of a few windows.
    best = np.zeros(rows.shape[1], np.int64)
    reach = np.full(rows.shape[1], np.inf, np.float32)
    for first in range(chosen - nearest + 1):
        farthest = np.maximum(middle - rows[first], rows[first + nearest - 1] - middle)
        closer = farthest < reach
        best[closer], reach[closer] = first, farthest[closer]
    total = np.zeros(rows.shape[1])
    for first in range(chosen - nearest + 1):
        here = best == first
        window = rows[first : first + nearest, here]
        total[here] = window.sum(axis=0, dtype=np.float64)
    mean: Doubles = total / nearest
    return mean


def _byzantine(parameters: BulyanParameters, count: int) -> int:
    return (count - 3) // 4 if parameters.byzantine is None else parameters.byzantine


methods.register("bulyan")(
    CoordinateMethod(
        summary="Krum's choice of updates, then the mean of the values nearest to their median",
        paper="https://arxiv.org/abs/1802.07927",
        parameters=BulyanParameters,
        select=select,
        combine=nearest_mean,
        minimum=minimum,
    )
)
