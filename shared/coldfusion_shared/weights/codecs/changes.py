"""The update of a model on its way into an encoder: what changed, chunk by chunk, and finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import local

import numpy as np

from coldfusion_shared.errors import NonFiniteWeights
from coldfusion_shared.fusion.updates import Floats, FullUpdate, Scratch
from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS, StoredTensor, chunks
from coldfusion_shared.weights.codecs.encoding import Progress, Sums, check_shapes
from coldfusion_shared.weights.header import ITEM_BYTES, TensorSpan

Tensors = Mapping[str, StoredTensor]


@dataclass(frozen=True)
class Chunk:
    """Elements `start` to `stop` of the tensor `span`, as the base describes it."""

    span: TensorSpan
    start: int
    stop: int


def changed(finetuned: Tensors, base: Tensors, progress: Progress) -> list[str]:
    """
    Return the names of the floats that differ from the base, in the base's order.

    Reads a tensor up to its first chunk that differs; those that do not are counted as done.

    Raises:
        IncompatibleWeights: as `check_shapes`.
    """
    names = []
    for name in check_shapes(finetuned, base):
        if _differs(finetuned[name], base[name]):
            names.append(name)
        else:
            span = finetuned[name].span
            progress(span.elements * ITEM_BYTES[span.dtype])
    return names


def _differs(one: StoredTensor, other: StoredTensor) -> bool:
    if one is other:
        return False
    # By value: -0.0 is 0.0, and NaN differs, so that it is found when it is encoded.
    return any(
        bool((one.values(start, stop) != other.values(start, stop)).any())
        for start, stop in chunks(one.span.elements)
    )


def chunks_of(base: Tensors, names: Sequence[str]) -> Iterator[Chunk]:
    """Yield all chunks of the tensors `names`, one tensor after another."""
    for name in names:
        span = base[name].span
        for start, stop in chunks(span.elements):
            yield Chunk(span, start, stop)


def weight_bytes(finetuned: Tensors, chunk: Chunk) -> int:
    """Return how many bytes of finetuned weights a chunk has."""
    return (chunk.stop - chunk.start) * ITEM_BYTES[finetuned[chunk.span.name].span.dtype]


class Difference(local):
    """One thread's reader of the update that is encoded."""

    def __init__(self, finetuned: Tensors, base: Tensors) -> None:
        """Subtract as the fuse does that gets the weights whole."""
        self.update = FullUpdate(finetuned, base)
        self.scratch = Scratch()
        self.out = np.empty(CHUNK_ELEMENTS, np.float32)

    def read(self, chunk: Chunk) -> Floats:
        """
        Return the update of a chunk, (n,), valid until the next call of this thread.

        Raises:
            NonFiniteWeights: it holds NaN or infinity.
        """
        out = self.out[: chunk.stop - chunk.start]
        # What is not finite is told below, and not by a warning.
        with np.errstate(over="ignore", invalid="ignore"):
            self.update.read(chunk.span, chunk.start, chunk.stop, out, self.scratch)
        if not np.isfinite(out).all():
            name = chunk.span.name
            raise NonFiniteWeights(
                f"The update has NaN or infinity in tensor {name!r}.",
                hint="The training diverged: try a smaller learning rate.",
                tensors=[name],
            )
        return out


def compare(update: Floats, decoded: Floats) -> Sums:
    """Return the sums over a chunk, both (n,)."""
    # einsum adds in one thread and in one order, which a BLAS does not promise.
    exact = update.astype(np.float64)
    error = decoded - exact
    products = (
        np.einsum("i,i", *pair) for pair in ((exact, exact), (error, error), (error, exact))
    )
    return Sums(*map(float, products))
