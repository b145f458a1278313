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

Doubles = npt.NDArray[np.float64]

# Two float64 blocks of this fit the second cache.
BLOCK_ELEMENTS = 2**14


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


def multiply(
    rows: Doubles, columns: Doubles, scale: float, part: Rectangle, total: Doubles, term: Doubles
) -> Doubles:
    """
    Return ``scale * rows.T @ columns`` in one rectangle.

    Args:
        rows: (rank, all rows).
        columns: (rank, all columns).
        scale: factor of the sums.
        part: which rectangle.
        total: room for the result, at least `BLOCK_ELEMENTS`.
        term: as much room for one summand.

    Returns:
        The values, (rows, columns) of the rectangle, in `total`.
    """
    shape = (part.bottom - part.top, part.right - part.left)
    total = total[: part.elements].reshape(shape)
    term = term[: part.elements].reshape(shape)
    for place, (row, column) in enumerate(
        zip(rows[:, part.top : part.bottom], columns[:, part.left : part.right], strict=True)
    ):
        np.multiply(row[:, None], column[None, :], out=term if place else total)
        if place:
            np.add(total, term, out=total)
    np.multiply(total, scale, out=total)
    return total


def sum_of_columns(values: Doubles) -> Doubles:
    """Return each row's sum, (n,), of `values`, (n, m), which are overwritten; in a fixed order."""
    width = values.shape[1]
    while width > 1:
        half = width // 2
        values[:, :half] += values[:, width - half : width]
        width -= half
    return values[:, 0].copy()
