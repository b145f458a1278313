"""Blocks and rows: how a tensor is cut, the same for all encodings in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
import numpy.typing as npt

from coldfusion_shared.fusion.updates import Floats

# Small enough that a read of any span decodes little too much.
BLOCK_ELEMENTS = 2**14
# A scale for each row of so many values adds at most 0.4% to float32's bytes.
MIN_ROW_ELEMENTS = 256
SCALE_BYTES = 4
# What the names of the tensors with the frames' lengths begin with.
INDEX = "index"

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """Elements `start` to `stop` of a flattened tensor whose rows have `row` of them."""

    start: int
    stop: int
    row: int

    @property
    def elements(self) -> int:
        """Number of values."""
        return self.stop - self.start

    @property
    def rows(self) -> int:
        """Number of rows, parts of rows among them."""
        return (self.stop - 1) // self.row - self.start // self.row + 1

    @property
    def bit_bytes(self) -> int:
        """Bytes that have a bit for each value."""
        return -(-self.elements // 8)

    def row_lengths(self, start: int, stop: int) -> Counts:
        """Return how many of the elements from `start` to `stop` are in each of their rows."""
        return _lengths(start % self.row, stop - start, self.row)

    def by_row(self, scales: Floats, start: int, stop: int) -> Floats:
        """Return the scale of each element from `start` to `stop`, from one for each row, (S,)."""
        first = start // self.row - self.start // self.row
        lengths = self.row_lengths(start, stop)
        return np.repeat(scales[first : first + lengths.size], lengths)

    def largest(self, magnitudes: Floats) -> Floats:
        """Return the largest of `magnitudes`, one for each element, in each row, (S,)."""
        largest: Floats = np.maximum.reduceat(magnitudes, self._starts())
        return largest

    def mean(self, magnitudes: Floats) -> Floats:
        """Return the mean of `magnitudes`, one for each element, in each row, (S,)."""
        sums = np.add.reduceat(magnitudes, self._starts(), dtype=np.float64)
        means: Floats = (sums / self.row_lengths(self.start, self.stop)).astype(np.float32)
        return means

    def _starts(self) -> Counts:
        lengths = self.row_lengths(self.start, self.stop)
        starts: Counts = np.cumsum(lengths) - lengths
        return starts


# Of one shape of tensor there are few: as many as places where a block's edge can cut a row.
@lru_cache(maxsize=4096)
def _lengths(offset: int, elements: int, row: int) -> Counts:
    """Return how `elements` values that begin `offset` into a row are spread over the rows."""
    edges = np.arange(0, offset + elements + row, row, dtype=np.int64)
    edges = np.clip(edges, offset, offset + elements)
    lengths: Counts = edges[1:] - edges[:-1]
    lengths = lengths[lengths > 0]
    lengths.setflags(write=False)
    return lengths


def row_elements(shape: tuple[int, ...]) -> int:
    """Return how many values one row of a tensor of `shape` has, at least 1."""
    for first in range(len(shape) - 1, 0, -1):
        if prod(shape[first:]) >= MIN_ROW_ELEMENTS:
            return prod(shape[first:])
    return max(1, prod(shape))


def block_count(elements: int) -> int:
    """Return the number of blocks of a tensor of `elements` values."""
    return -(-elements // BLOCK_ELEMENTS)


def block_of(place: int, elements: int, row: int) -> Block:
    """Return the block with the number `place` of a tensor of `elements` values."""
    start = place * BLOCK_ELEMENTS
    return Block(start, min(start + BLOCK_ELEMENTS, elements), row)


def worst_block(elements: int, row: int) -> Block:
    """Return a block with as many rows as the edges of blocks can make of `elements` values."""
    return Block(row - 1, row - 1 + min(BLOCK_ELEMENTS, elements), row)


def blocks_of(start: int, stop: int, elements: int, row: int) -> Iterator[tuple[int, Block]]:
    """Yield number and block of all that have a part of the elements `start` to `stop`."""
    if start < stop:
        for place in range(start // BLOCK_ELEMENTS, (stop - 1) // BLOCK_ELEMENTS + 1):
            yield place, block_of(place, elements, row)
