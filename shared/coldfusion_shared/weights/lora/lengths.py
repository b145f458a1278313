"""
The lengths of DoRA: of each output's vector in ``W + scale * B A``, found where they are needed.

See https://arxiv.org/abs/2402.09353. A row's length takes that row alone; a column's, where the
base keeps its matrix as (in, out), takes the whole matrix.
"""

from __future__ import annotations

from threading import Lock

import numpy as np

from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS, StoredTensor
from coldfusion_shared.weights.lora.product import (
    BLOCK_ELEMENTS,
    Doubles,
    Product,
    Rectangle,
    rectangles,
    sum_of_columns,
)


class Lengths:
    """The lengths of one matrix; several threads may ask for them."""

    def __init__(self, product: Product, begun: StoredTensor, *, transposed: bool) -> None:
        """
        Compute nothing yet.

        Args:
            product: ``scale * B A``.
            begun: what it is added to, (rows, columns).
            transposed: whether the outputs are the columns.
        """
        self.product = product
        self.begun = begun
        self.transposed = transposed
        self.rows, self.columns = begun.span.shape
        # What is not known yet is below 0.
        self._found = np.full(self.columns if transposed else self.rows, -1.0)
        self._lock = Lock()

    def of_rows(self, top: int, bottom: int) -> Doubles:
        """Return those of the rows `top` to `bottom`; two threads may find the same ones."""
        found = self._found[top:bottom]
        if (found < 0).any():
            found[:] = self._measured(top, bottom)
        return found

    def of_columns(self) -> Doubles:
        """Return those of all columns."""
        with self._lock:
            if (self._found < 0).any():
                self._found[:] = self._measured(0, self.rows)
        return self._found

    def _measured(self, top: int, bottom: int) -> Doubles:
        squares = np.zeros(self.columns if self.transposed else bottom - top)
        step = max(1, CHUNK_ELEMENTS // self.columns)
        for first in range(top, bottom, step):
            strip = Rectangle(first, min(first + step, bottom), 0, self.columns)
            found = squares if self.transposed else squares[first - top : strip.bottom - top]
            self._add_squares(strip, found)
        lengths: Doubles = np.sqrt(squares)
        return lengths

    def _add_squares(self, strip: Rectangle, squares: Doubles) -> None:
        """Add what the rows of `strip` bring to the squares of its outputs' lengths."""
        window, columns = self.product.window(strip), self.columns
        total, term = np.empty(BLOCK_ELEMENTS), np.empty(BLOCK_ELEMENTS)
        for part in rectangles(strip.top * columns, strip.bottom * columns, columns):
            values = window.multiply(part, total, term)
            place = part.top * columns + part.left
            values += self.begun.values(place, place + part.elements).reshape(values.shape)
            np.multiply(values, values, out=values)
            if self.transposed:
                # Row by row, so that the blocks do not matter.
                for row in values:
                    squares[part.left : part.right] += row
            else:
                squares[part.top - strip.top : part.bottom - strip.top] += sum_of_columns(values)
