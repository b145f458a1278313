"""Drop values by chance and rescale what is left, so that the expectation stays the update."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coldfusion_shared.fusion.sparsify.draws import DRAW_STEP, draw_key, uniform_draws
from coldfusion_shared.fusion.updates import Floats, Scratch, UpdateReader
from coldfusion_shared.weights.header import TensorSpan

# A row that is longer is ranked in pieces, so that memory stays bounded.
MAX_ROW = 2**15


@dataclass(frozen=True)
class DropAndRescale:
    """
    DARE: keep each value with probability `density`, and divide it by that.

    Attributes:
        density: probability of staying, above 0.
        seed: of the draws.
        contribution: whose update it is; every contribution has its own draws.
    """

    density: float
    seed: int
    contribution: str

    def prepare(self, reader: UpdateReader, span: TensorSpan, scratch: Scratch) -> None:
        """Draws need nothing beforehand."""

    def read(
        self,
        reader: UpdateReader,
        prepared: None,
        span: TensorSpan,
        start: int,
        stop: int,
        out: Floats,
        scratch: Scratch,
    ) -> None:
        """Read the span, put zeros where the draw says so, divide the rest."""
        reader.read(span, start, stop, out, scratch)
        if self.density >= 1:
            return
        key = draw_key(self.seed, self.contribution, span.name)
        # What the draws, which are multiples of this step, make of the density.
        share = np.float32(np.ceil(self.density / DRAW_STEP) * DRAW_STEP)
        _keep(out, uniform_draws(key, start, stop) < share, share)


@dataclass(frozen=True)
class MagnitudePrune:
    """
    DELLA's MAGPRUNE: keep each value with a probability that grows with its rank in its row.

    The probability goes in even steps from ``density - epsilon`` for the smallest magnitude of a
    row to ``density + epsilon`` for the largest; what is kept is divided by it. A row is what one
    output of the layer has: all dimensions but the first; a vector is one row.

    Attributes:
        density: mean probability of staying.
        epsilon: half the width of the probabilities' range.
        seed: of the draws.
        contribution: whose update it is.
    """

    density: float
    epsilon: float
    seed: int
    contribution: str

    def prepare(self, reader: UpdateReader, span: TensorSpan, scratch: Scratch) -> None:
        """Draws need nothing beforehand."""

    def read(
        self,
        reader: UpdateReader,
        prepared: None,
        span: TensorSpan,
        start: int,
        stop: int,
        out: Floats,
        scratch: Scratch,
    ) -> None:
        """Read whole rows around the span, because ranks are taken in them."""
        if self.density >= 1:
            reader.read(span, start, stop, out, scratch)
            return
        key = draw_key(self.seed, self.contribution, span.name)
        for first, last in _rows(span, start, stop):
            row = np.empty(last - first, np.float32)
            reader.read(span, first, last, row, scratch)
            probability = self._probabilities(row)
            kept = uniform_draws(key, first, last) < probability
            _keep(row, kept, probability)
            begin, end = max(first, start), min(last, stop)
            out[begin - start : end - start] = row[begin - first : end - first]

    def _probabilities(self, row: Floats) -> Floats:
        if row.size == 1:
            return np.full(1, self.density, np.float32)
        # Stable, so that equal magnitudes have the same ranks on every machine.
        order = np.argsort(np.abs(row), kind="stable")
        steps = np.empty(row.size, np.float32)
        steps[order] = np.linspace(-self.epsilon, self.epsilon, row.size, dtype=np.float32)
        return np.float32(self.density) + steps


def _keep(values: Floats, kept: npt.NDArray[np.bool_], probability: Floats | np.float32) -> None:
    """Divide what is kept, put zeros elsewhere; what is not finite stays, so that it is found."""
    np.divide(values, probability, out=values)
    values[~kept & np.isfinite(values)] = 0


def _rows(span: TensorSpan, start: int, stop: int) -> list[tuple[int, int]]:
    """Return the borders of the rows, or pieces of rows, that have elements `start` to `stop`."""
    whole = span.elements // span.shape[0] if len(span.shape) > 1 else span.elements
    found = []
    for row in range(start // whole, (stop - 1) // whole + 1):
        for piece in range(row * whole, (row + 1) * whole, MAX_ROW):
            end = min(piece + MAX_ROW, (row + 1) * whole)
            if piece < stop and end > start:
                found.append((piece, end))
    return found
