"""
The fuse itself: one streaming pass over a fixed grid of chunks, never a whole model in memory.

    theta_new = theta_base + sum_c w_c * (theta_c - theta_{b(c)})

summed in float64 and rounded once to the base's dtype. Everything is defined on updates, so
contributions made from different bases fuse by the same code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coldfusion_shared.errors import NonFiniteWeights
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import (
    NUMPY_DTYPES,
    Checkpoint,
    StoredTensor,
    chunks,
)
from coldfusion_shared.weights.header import build_header

Values = npt.NDArray[Any]


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


def fused_file(file: str, base: Checkpoint, updates: Sequence[Update]) -> Iterator[memoryview]:
    """
    Yield the bytes of one weights file of the fused base, in order, header first.

    Tensors outside the body (heads, integers) are the base's own.

    Args:
        file: the name of the file, one of `base.headers`.
        base: what the fused update is added to.
        updates: in the order of the manifest, so that the same sum is taken every time.

    Raises:
        NonFiniteWeights: the result holds NaN or infinity; the contribution at fault is named.
    """
    tensors = base.headers[file].tensors
    shared = body(base.spans())
    yield memoryview(build_header((span.name, span.dtype, span.shape) for span in tensors))
    for span in tensors:
        fused = updates if span.name in shared else ()
        for start, stop in chunks(span.elements):
            values = _fused_chunk(span.name, base.tensors[span.name], fused, start, stop)
            yield values.view(np.uint8).data


def fused_size(file: str, base: Checkpoint) -> int:
    """Return the number of bytes that `fused_file` yields."""
    tensors = base.headers[file].tensors
    header = build_header((span.name, span.dtype, span.shape) for span in tensors)
    return len(header) + sum(span.stop - span.start for span in tensors)


def _fused_chunk(
    name: str, base: StoredTensor, updates: Sequence[Update], start: int, stop: int
) -> Values:
    ours = base.values(start, stop)
    if not updates:
        return ours
    # An overflow becomes infinite, which is caught below and not by a warning.
    with np.errstate(over="ignore", invalid="ignore"):
        total = ours + _fused_update(name, updates, start, stop)
        fused: Values = total.astype(NUMPY_DTYPES[base.span.dtype])
        if not np.isfinite(fused).all():
            raise _non_finite(name, updates, start, stop)
    base.release(start, stop)
    return fused


def _fused_update(name: str, updates: Sequence[Update], start: int, stop: int) -> Values:
    """Return the weighted sum of the updates' chunks, float64, (stop - start,)."""
    count = len(updates)
    # Of K = 6 float32 values with one exponent every sixth mean lies half-way between two others,
    # and only a division by K itself, not a product with the rounded 1 / K, stays half-way.
    equal = all(update.weight == 1 / count for update in updates)
    total: Values = np.zeros(stop - start)
    for update in updates:
        delta = _update_chunk(update, name, start, stop)
        total += delta if equal else update.weight * delta
    return total / count if equal else total


def _update_chunk(update: Update, name: str, start: int, stop: int) -> Values:
    """Return elements `start` to `stop` of the update's tensor `name`, float64, (stop - start,)."""
    theirs, before = update.weights.tensors[name], update.base.tensors[name]
    delta: Values = np.subtract(
        theirs.values(start, stop).astype(np.float64), before.values(start, stop)
    )
    theirs.release(start, stop)
    return delta


def _non_finite(name: str, updates: Sequence[Update], start: int, stop: int) -> NonFiniteWeights:
    for update in updates:
        if not np.isfinite(_update_chunk(update, name, start, stop)).all():
            return NonFiniteWeights(
                f"Contribution {update.id} has NaN or infinity in tensor {name!r}.", tensors=[name]
            )
    return NonFiniteWeights(
        f"The fused tensor {name!r} leaves the range of its dtype.", tensors=[name]
    )
