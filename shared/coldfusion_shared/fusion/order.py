"""
Order statistics of every column at once, by a sorting network.

A network compares rows in a fixed pattern, so each comparison is a minimum and a maximum of two
whole rows, which a processor does many values at a time; a sort of every column cannot. Comparisons
that the wanted ranks do not depend on are left out.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from coldfusion_shared.fusion.updates import Floats

# Lower row, upper row, and which of the two results are needed.
Comparison = tuple[int, int, bool, bool]


def ranked_rows(stack: Floats, first: int, last: int) -> list[Floats]:
    """
    Sort every column of `stack`, (K, n), and return the rows of ranks `first` to `last`, each (n,).

    `stack` is overwritten. NaN goes wherever it is compared to.
    """
    rows = list(stack)
    spare = np.empty_like(rows[0])
    for low, high, need_low, need_high in network(len(stack), first, last):
        if need_low:
            np.minimum(rows[low], rows[high], out=spare)
        if need_high:
            np.maximum(rows[low], rows[high], out=rows[high])
        if need_low:
            rows[low], spare = spare, rows[low]
    return rows[first:last]


@lru_cache(maxsize=64)
def network(count: int, first: int, last: int) -> tuple[Comparison, ...]:
    """Return the comparisons that bring the ranks `first` to `last` of `count` rows to their place.

    Batcher's odd-even merge sort (https://doi.org/10.1145/1468075.1468121), cut down.
    """
    needed = set(range(first, last))
    kept: list[Comparison] = []
    for low, high in reversed(_odd_even_merge_sort(count)):
        if low in needed or high in needed:
            kept.append((low, high, low in needed, high in needed))
            needed |= {low, high}
    return tuple(reversed(kept))


def _odd_even_merge_sort(count: int) -> list[tuple[int, int]]:
    """Return all comparisons for `count` rows, in order; it need not be a power of two."""
    comparisons = []
    size = 1
    while size < count:
        step = size
        while step:
            comparisons += _merge_step(count, size, step)
            step //= 2
        size *= 2
    return comparisons


def _merge_step(count: int, size: int, step: int) -> list[tuple[int, int]]:
    found = []
    for start in range(step % size, count - step, 2 * step):
        for offset in range(min(step, count - start - step)):
            low = start + offset
            if low // (2 * size) == (low + step) // (2 * size):
                found.append((low, low + step))
    return found
