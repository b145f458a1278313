"""
B A by rectangles, the same to the last bit however a matrix is cut into them.

A library's product blocks its sums by the shape that it is given. Here each value is summed over
the rank in order, in float64, by operations on single values alone: no cut, no number of threads
and no processor changes a bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coldfusion_shared.weights.lora.strips import Factor, Values

Doubles = npt.NDArray[np.float64]

# Two float64 blocks of this fit the second cache.
BLOCK_ELEMENTS = 2**14
# What of a factor is widened to float64 before it is multiplied; of more, line by line.
WIDENED_VALUES = 2**18


@dataclass(frozen=True)
class Rectangle:
    """A part of a matrix: rows `top` to `bottom`, columns `left` to `right`."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def elements(self) -> int:
        """Number of values."""
        return (self.bottom - self.top) * (self.right - self.left)


def rectangles(start: int, stop: int, columns: int) -> Iterator[Rectangle]:
    """Yield what covers elements `start` to `stop` of a flattened matrix, in their order."""
    while start < stop:
        row, column = divmod(start, columns)
        if column or stop - start < columns or columns > BLOCK_ELEMENTS:
            width = min(columns - column, stop - start, BLOCK_ELEMENTS)
            found = Rectangle(row, row + 1, column, column + width)
        else:
            rows = min((stop - start) // columns, BLOCK_ELEMENTS // columns)
            found = Rectangle(row, row + rows, 0, columns)
        yield found
        start += found.elements


@dataclass(frozen=True)
class Product:
    """
    ``scale * B A``, of which nothing is computed yet.

    Attributes:
        rows: the factor that has a place for each row.
        columns: the one that has a place for each column.
        scale: factor of the sums.
    """

    rows: Factor
    columns: Factor
    scale: float

    def window(self, part: Rectangle) -> Window:
        """Return what the values in `part` are made of."""
        rows = _widened(self.rows.part(part.top, part.bottom))
        columns = _widened(self.columns.part(part.left, part.right))
        return Window(rows, columns, self.scale, part)


@dataclass(frozen=True)
class Window:
    """
    What the values of one rectangle are made of.

    Attributes:
        rows: (rank, its rows).
        columns: (rank, its columns).
        scale: factor of the sums.
        within: the rectangle.
    """

    rows: Values
    columns: Values
    scale: float
    within: Rectangle

    def multiply(self, part: Rectangle, total: Doubles, term: Doubles) -> Doubles:
        """
        Return the product in a rectangle within this one.

        Args:
            part: which rectangle.
            total: room for the result, at least `BLOCK_ELEMENTS`.
            term: as much room for one summand.

        Returns:
            The values, (rows, columns) of the rectangle, in `total`.
        """
        shape = (part.bottom - part.top, part.right - part.left)
        total = total[: part.elements].reshape(shape)
        term = term[: part.elements].reshape(shape)
        rows = self.rows[:, part.top - self.within.top : part.bottom - self.within.top]
        columns = self.columns[:, part.left - self.within.left : part.right - self.within.left]
        for place, (row, column) in enumerate(zip(rows, columns, strict=True)):
            # Of two float32 numpy would make a float32, whatever it goes into.
            one, other = row.astype(np.float64, copy=False), column.astype(np.float64, copy=False)
            np.multiply(one[:, None], other, out=term if place else total)
            if place:
                np.add(total, term, out=total)
        np.multiply(total, self.scale, out=total)
        return total


def _widened(values: Values) -> Values:
    """Return `values` as float64 at once, where that is little."""
    return values.astype(np.float64, copy=False) if values.size <= WIDENED_VALUES else values


def sum_of_columns(values: Doubles) -> Doubles:
    """Return each row's sum, (n,), of `values`, (n, m), which are overwritten; in a fixed order."""
    width = values.shape[1]
    while width > 1:
        half = width // 2
        values[:, :half] += values[:, width - half : width]
        width -= half
    return values[:, 0].copy()
