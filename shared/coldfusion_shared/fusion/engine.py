"""
The fuse itself: one streaming pass over a fixed grid of chunks, never a whole model in memory.

    theta_new = theta_base + sum_c w_c * (theta_c - theta_{b(c)})

summed in float64 and rounded once to the base's dtype. Everything is defined on updates, so
contributions made from different bases fuse by the same code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import local
from typing import Any

import numpy as np
import numpy.typing as npt

from coldfusion_shared.errors import NonFiniteWeights
from coldfusion_shared.fusion.executor import Executor, Serial
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import (
    CHUNK_ELEMENTS,
    NUMPY_DTYPES,
    Checkpoint,
    StoredTensor,
    chunks,
)
from coldfusion_shared.weights.header import TensorSpan, build_header

Values = npt.NDArray[Any]

# A factor below this is what rounding has left of zero.
CANCELLED = 1e-12


@dataclass(frozen=True)
class Update:
    """
    One contribution on its way into the fuse.

    Attributes:
        id: the contribution's name, for messages.
        weights: its body.
        base: the base that it was finetuned from.
        weight: the factor of its update in the fused update.
    """

    id: str
    weights: Checkpoint
    base: Checkpoint
    weight: float


def fused_file(
    file: str, base: Checkpoint, updates: Sequence[Update], executor: Executor | None = None
) -> Iterator[memoryview]:
    """
    Yield the bytes of one weights file of the fused base, in order, header first.

    Tensors outside the body (heads, integers) are the base's own.

    Args:
        file: the name of the file, one of `base.headers`.
        base: what the fused update is added to.
        updates: in the order of the manifest, so that the same sum is taken every time.
        executor: works on the chunks; null: this thread. It changes no bit of the result.

    Raises:
        NonFiniteWeights: the result holds NaN or infinity; the contribution at fault is named.
    """
    tensors = base.headers[file].tensors
    yield memoryview(build_header((span.name, span.dtype, span.shape) for span in tensors))
    tasks = _tasks(tensors, base, updates)
    for values in (executor or Serial()).map(_Worker().fuse, tasks):
        yield values.view(np.uint8).data


def _tasks(
    tensors: Sequence[TensorSpan], base: Checkpoint, updates: Sequence[Update]
) -> Iterator[_Task]:
    shared = body(base.spans())
    for span in tensors:
        fused = _weighted_sum(span.name, base, updates) if span.name in shared else None
        for start, stop in chunks(span.elements):
            yield _Task(base.tensors[span.name], start, stop, fused, updates)


def fused_size(file: str, base: Checkpoint) -> int:
    """Return the number of bytes that `fused_file` yields."""
    tensors = base.headers[file].tensors
    header = build_header((span.name, span.dtype, span.shape) for span in tensors)
    return len(header) + sum(span.stop - span.start for span in tensors)


@dataclass(frozen=True)
class _Sum:
    """
    One tensor of the fused base as a weighted sum of stored tensors, each read once.

    Attributes:
        terms: factor and tensor.
        divisor: what the sum is divided by in the end.
    """

    terms: list[tuple[float, StoredTensor]]
    divisor: int


def _weighted_sum(name: str, base: Checkpoint, updates: Sequence[Update]) -> _Sum:
    """
    Write base + sum of weight * (weights - own base) as a sum of stored tensors.

    A base whose factors cancel out is not read at all: for the mean of contributions made from the
    round's own base, nothing is left but the contributions.
    """
    count = len(updates)
    # Of K = 6 float32 values with one exponent every sixth mean lies half-way between two others,
    # and only a division by K itself, not a product with the rounded 1 / K, stays half-way.
    equal = all(update.weight == 1 / count for update in updates)
    divisor = count if equal else 1
    factors: dict[Checkpoint, float] = {base: float(divisor)}
    for update in updates:
        weight = 1.0 if equal else update.weight
        factors[update.base] = factors.get(update.base, 0.0) - weight
        factors[update.weights] = factors.get(update.weights, 0.0) + weight
    terms = [(factor, source.tensors[name]) for source, factor in factors.items()]
    return _Sum([term for term in terms if abs(term[0]) > CANCELLED], divisor)


class _Worker(local):
    """One thread's sums, in buffers that it uses again and again."""

    def __init__(self) -> None:
        self.total = np.empty(CHUNK_ELEMENTS)
        self.term = np.empty(CHUNK_ELEMENTS)

    def fuse(self, task: _Task) -> Values:
        """Return elements `start` to `stop` of one fused tensor, in the base's dtype."""
        if task.sum is None:
            return task.base.values(task.start, task.stop)
        total = self.total[: task.stop - task.start]
        # An overflow becomes infinite, which is caught below and not by a warning.
        with np.errstate(over="ignore", invalid="ignore"):
            self._add(task.sum, task.start, task.stop, total)
            total /= task.sum.divisor
            fused: Values = total.astype(NUMPY_DTYPES[task.base.span.dtype])
            if not np.isfinite(fused).all():
                raise _non_finite(task)
        return fused

    def _add(self, weighted: _Sum, start: int, stop: int, total: Values) -> None:
        term = self.term[: total.size]
        for place, (factor, tensor) in enumerate(weighted.terms):
            values = tensor.values(start, stop)
            if place == 0:
                np.multiply(values, factor, out=total, dtype=np.float64)
            elif factor == 1:
                np.add(total, values, out=total)
            else:
                np.multiply(values, factor, out=term, dtype=np.float64)
                np.add(total, term, out=total)
            tensor.release(start, stop)


@dataclass(frozen=True)
class _Task:
    """A chunk of one tensor; outside the body, which has no sum, it is the base's own."""

    base: StoredTensor
    start: int
    stop: int
    sum: _Sum | None
    updates: Sequence[Update]


def _non_finite(task: _Task) -> NonFiniteWeights:
    name = task.base.span.name
    for update in task.updates:
        theirs, before = update.weights.tensors[name], update.base.tensors[name]
        delta = theirs.values(task.start, task.stop).astype(np.float64)
        delta -= before.values(task.start, task.stop)
        if not np.isfinite(delta).all():
            return NonFiniteWeights(
                f"Contribution {update.id} has NaN or infinity in tensor {name!r}.", tensors=[name]
            )
    return NonFiniteWeights(
        f"The fused tensor {name!r} leaves the range of its dtype.", tensors=[name]
    )
