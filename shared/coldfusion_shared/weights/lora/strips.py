"""
Factors of adapters in memory: strips of them, for all adapters of the process together.

A fuse goes through one tensor after another, of K adapters at a time, and needs of each the factor
that all rows share and a few places of the other one. What is kept of all K has one limit; where
that is too little, strips are read again, which takes less time than multiplying them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from threading import RLock
from typing import Any

import numpy as np
import numpy.typing as npt

from coldfusion_shared.errors import NonFiniteWeights
from coldfusion_shared.weights.checkpoint import StoredTensor
from coldfusion_shared.weights.header import short

Values = npt.NDArray[Any]

# What all adapters of the process together may hold.
CACHE_BYTES = 2**27
# 256 KiB in float32.
STRIP_VALUES = 2**16

# No two readers of a process have the same; an id would be used again.
serials = count()


@dataclass(frozen=True)
class Factor:
    """
    One factor of a product, as it is stored, seen as (rank, places).

    Attributes:
        reader: serial of the adapter's reader.
        tensor: (rank, places), or (places, rank) where `by_place`.
        by_place: which of the two.
    """

    reader: int
    tensor: StoredTensor
    by_place: bool

    @property
    def rank(self) -> int:
        """Number of summands of the product."""
        return self.tensor.span.shape[self.by_place]

    @property
    def places(self) -> int:
        """Rows, or columns, of the product."""
        return self.tensor.span.shape[not self.by_place]

    def part(self, first: int, last: int) -> Values:
        """
        Return the places `first` to `last`, (rank, last - first), in the tensor's own dtype.

        Raises:
            NonFiniteWeights: the tensor holds NaN or infinity there.
        """
        width = max(1, STRIP_VALUES // self.rank)
        cut = [strip[:, low:high] for strip, low, high in self._strips(first, last, width)]
        return cut[0] if len(cut) == 1 else np.concatenate(cut, axis=1)

    def _strips(self, first: int, last: int, width: int) -> Iterator[tuple[Values, int, int]]:
        """Yield strips of `width` places, and which of their places are wanted."""
        for number in range(first // width, -(-last // width)):
            start = number * width
            stop = min(start + width, self.places)
            strip = kept.get(self, number)
            if strip is None:
                strip = self._read(start, stop)
                kept.add(self, number, strip)
            yield strip, max(first, start) - start, min(last, stop) - start

    def _read(self, start: int, stop: int) -> Values:
        size = stop - start
        if self.by_place:
            flat = self.tensor.values(start * self.rank, stop * self.rank)
            values = np.ascontiguousarray(flat.reshape(size, self.rank).T)
        elif size == self.places:
            values = self.tensor.values(0, self.rank * size).reshape(self.rank, size)
        else:
            lines = (row * self.places + start for row in range(self.rank))
            values = np.stack([self.tensor.values(line, line + size) for line in lines])
        check_finite(self.tensor, values)
        return values


def check_finite(tensor: StoredTensor, values: Values) -> None:
    """Raise `NonFiniteWeights` where `values`, some of an adapter's `tensor`, are not finite."""
    if not np.isfinite(values).all():
        raise NonFiniteWeights(
            f"The adapter has NaN or infinity in tensor {short(tensor.span.name)!r}.",
            hint="Train it again with a lower learning rate: nothing sound can be made from it.",
            tensors=[tensor.span.name],
        )


class Kept:
    """Strips by reader, tensor and number; the least recently used go first."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.bytes = 0
        # A reader may end, by the garbage collector, while this thread holds it.
        self._lock = RLock()
        self._strips: OrderedDict[tuple[int, str, int], Values] = OrderedDict()

    def get(self, factor: Factor, number: int) -> Values | None:
        """Return a strip if it is kept."""
        key = (factor.reader, factor.tensor.span.name, number)
        with self._lock:
            if key in self._strips:
                self._strips.move_to_end(key)
            return self._strips.get(key)

    def add(self, factor: Factor, number: int, strip: Values) -> None:
        """Keep a strip, at the cost of others."""
        key = (factor.reader, factor.tensor.span.name, number)
        with self._lock:
            self._drop(key)
            self._strips[key] = strip
            self.bytes += strip.nbytes
            while self.bytes > CACHE_BYTES:
                self._drop(next(iter(self._strips)))

    def forget(self, reader: int) -> None:
        """Drop all strips of a reader that is gone."""
        with self._lock:
            for key in list(self._strips):
                if key[0] == reader:
                    self._drop(key)

    def _drop(self, key: tuple[int, str, int]) -> None:
        strip = self._strips.pop(key, None)
        self.bytes -= 0 if strip is None else strip.nbytes


kept = Kept()
