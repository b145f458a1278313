"""
The k-th largest magnitude of a stream of float32 values, exactly, without keeping or sorting them.

The bits of a float without its sign, taken as an integer, are in the order of its magnitude. So a
histogram of their upper half finds the bin that holds the k-th, and one of the lower half, within
that bin, finds the value itself: two passes, whatever the size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from coldfusion_shared.fusion.updates import Floats

Bits = npt.NDArray[np.uint32]
Stream = Callable[[], Iterable[Floats]]

MAGNITUDE = np.uint32(0x7FFFFFFF)
LOWER = 16
BINS = 2**16


def kth_largest(stream: Stream, ranks: list[int]) -> list[np.float32]:
    """
    Return for each rank k of `ranks`, counted from 1, the k-th largest magnitude in `stream`.

    Args:
        stream: yields the values, float32; called twice, it must yield the same ones.
        ranks: each from 1 to the number of values.
    """
    upper = np.zeros(BINS, np.int64)
    for values in stream():
        upper += np.bincount(magnitude_bits(values) >> LOWER, minlength=BINS)
    places = [_from_above(upper, rank) for rank in ranks]
    lower = {place: np.zeros(BINS, np.int64) for place, _ in places}
    for values in stream():
        bits = magnitude_bits(values)
        for place, counts in lower.items():
            inside = bits[bits >> LOWER == place] & (BINS - 1)
            counts += np.bincount(inside, minlength=BINS)
    return [_value(place, _from_above(lower[place], remaining)[0]) for place, remaining in places]


def magnitude_bits(values: Floats) -> Bits:
    """Return the bits of the magnitudes, (n,), which are in the same order as the magnitudes."""
    bits: Bits = values.view(np.uint32) & MAGNITUDE
    return bits


def _from_above(counts: npt.NDArray[np.int64], rank: int) -> tuple[int, int]:
    """Return the bin of the `rank`-th largest value, and its rank within that bin."""
    above = np.cumsum(counts[::-1])
    place = int(np.searchsorted(above, rank))
    return BINS - 1 - place, rank - (int(above[place - 1]) if place else 0)


def _value(upper: int, lower: int) -> np.float32:
    value: np.float32 = np.array([upper << LOWER | lower], np.uint32).view(np.float32)[0]
    return value
