"""
The k-th largest magnitude of a stream of float32 values, exactly, without keeping or sorting them.

A sample gives a bracket that holds the k-th value all but surely; one pass counts what lies above
it and keeps the few values inside, among which it is then found. Where the bracket misses, or too
many values are equal, a histogram decides: the bits of a float without its sign, taken as an
integer, are in the order of its magnitude, so one pass over their upper half finds the bin that
holds the k-th, and one over the lower half finds the value itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from coldfusion_shared.fusion.updates import Floats

# Yields the elements from the first to the second place of a tensor, in blocks.
Stream = Callable[[int, int], Iterable[Floats]]
Bits = npt.NDArray[np.uint32]

MAGNITUDE = np.uint32(0x7FFFFFFF)
LOWER = 16
BINS = 2**16

# Up to so many values are taken whole, which needs no sample.
SMALL = 2**17
SAMPLE_SPANS, SPAN = 64, 512
# The bracket reaches this many standard deviations of a sample's rank to both sides. Neighbours in
# a tensor are alike, so a sample of spans is worse than one of single values.
DEVIATIONS = 12.0
MAX_INSIDE = 2**23


def kth_largest(stream: Stream, elements: int, ranks: Sequence[int]) -> list[np.float32]:
    """
    Return for each rank k of `ranks`, counted from 1, the k-th largest magnitude of a tensor.

    Args:
        stream: reads the tensor, which is finite; else the result means nothing.
        elements: number of its values.
        ranks: each from 1 to `elements`.
    """
    if elements <= SMALL:
        return _of_array(_collected(stream(0, elements)), ranks)
    found = _bracketed(stream, elements, ranks)
    return found if found is not None else _by_histogram(stream, elements, ranks)


def _collected(blocks: Iterable[Floats]) -> Floats:
    return np.concatenate([np.abs(block) for block in blocks])


def _of_array(magnitudes: Floats, ranks: Sequence[int]) -> list[np.float32]:
    places = [magnitudes.size - rank for rank in ranks]
    magnitudes.partition(places)
    return [magnitudes[place] for place in places]


def _bracketed(stream: Stream, elements: int, ranks: Sequence[int]) -> list[np.float32] | None:
    """Return the values by sample and bracket; null where that fails."""
    step = elements // SAMPLE_SPANS
    starts = [place * step + (step - SPAN) // 2 for place in range(SAMPLE_SPANS)]
    sample = np.sort(np.concatenate([_collected(stream(start, start + SPAN)) for start in starts]))
    brackets = [_bracket(sample, rank / elements) for rank in ranks]
    above = [0] * len(ranks)
    inside: list[list[Floats]] = [[] for _ in ranks]
    kept = 0
    for block in stream(0, elements):
        magnitudes = np.abs(block)
        for place, (lowest, highest) in enumerate(brackets):
            over = magnitudes >= highest
            above[place] += int(np.count_nonzero(over))
            within = np.compress((magnitudes >= lowest) ^ over, magnitudes)
            inside[place].append(within)
            kept += within.size
        if kept > MAX_INSIDE:
            return None
    found = []
    for rank, over_it, values in zip(ranks, above, map(np.concatenate, inside), strict=True):
        if not 0 < rank - over_it <= values.size:
            return None
        found += _of_array(values, [rank - over_it])
    return found


def _bracket(sample: Floats, share: float) -> tuple[np.float32, np.float32]:
    """Return magnitudes below and above that of which `share` of all are larger."""
    reach = DEVIATIONS * np.sqrt(share * (1 - share) / sample.size) + 4 / sample.size
    low, high = int((1 - share - reach) * sample.size), int((1 - share + reach) * sample.size)
    lowest = sample[low] if low > 0 else np.float32(0)
    return lowest, sample[high] if high < sample.size else np.float32(np.inf)


def _by_histogram(stream: Stream, elements: int, ranks: Sequence[int]) -> list[np.float32]:
    upper = np.zeros(BINS, np.int64)
    for values in stream(0, elements):
        upper += np.bincount(_bits(values) >> LOWER, minlength=BINS)
    places = [_from_above(upper, rank) for rank in ranks]
    lower = {place: np.zeros(BINS, np.int64) for place, _ in places}
    for values in stream(0, elements):
        bits = _bits(values)
        for place, counts in lower.items():
            within = bits[bits >> LOWER == place] & (BINS - 1)
            counts += np.bincount(within, minlength=BINS)
    return [_value(place, _from_above(lower[place], rest)[0]) for place, rest in places]


def _bits(values: Floats) -> Bits:
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
