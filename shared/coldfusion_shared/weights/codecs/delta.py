"""The update itself, rounded to bfloat16: half of float32's bytes, and anyone can read it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import local
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from coldfusion_shared.errors import IncompatibleWeights
from coldfusion_shared.fusion.executor import Executor, Serial
from coldfusion_shared.fusion.updates import Floats, Scratch, Term
from coldfusion_shared.weights.checkpoint import ByteSource, Checkpoint
from coldfusion_shared.weights.codecs import encodings
from coldfusion_shared.weights.codecs.changes import (
    Chunk,
    Difference,
    Tensors,
    changed,
    chunks_of,
    compare,
    weight_bytes,
)
from coldfusion_shared.weights.codecs.encoding import (
    UPDATE_FILE,
    Encoded,
    Progress,
    Sums,
    WeightsEncoding,
    changeable,
    refuse,
    silent,
)
from coldfusion_shared.weights.header import TensorSpan, build_header
from coldfusion_shared.weights.write import appearing_whole

# What is larger would round to infinity.
_LARGEST = np.float32((2 - 2**-7) * 2.0**127)


@encodings.register("delta")
class Delta(WeightsEncoding):
    """
    No value is off by more than 1/256 of itself.

    But for the ends of the range: half of 2^-133, the smallest bfloat16, is lost in any value, and
    what is above the largest one, 3.39e38, becomes that.
    """

    name = "delta"
    files = (UPDATE_FILE,)

    def encode(
        self,
        finetuned: Tensors,
        base: Tensors,
        folder: Path,
        progress: Progress = silent,
        executor: Executor | None = None,
    ) -> Encoded:
        """Write the update; see `Encoding.encode`."""
        names = changed(finetuned, base, progress)
        sums, worker = Sums(), _Worker(Difference(finetuned, base))
        out = folder / UPDATE_FILE
        with appearing_whole(out) as file:
            file.write(self._header({name: base[name].span for name in names}))
            for rounded in (executor or Serial()).map(worker, chunks_of(base, names)):
                file.write(rounded.values.view(np.uint8).data)
                sums += rounded.sums
                progress(weight_bytes(finetuned, rounded.chunk))
            size = file.tell()
        return Encoded.of(size, sums)

    def open(self, sources: Mapping[str, ByteSource], base: Tensors) -> DeltaUpdate:
        """Return the reader of an update; see `Encoding.open`."""
        tensors = Checkpoint({UPDATE_FILE: self.source(sources)}).tensors
        spans = changeable({name: tensor.span for name, tensor in base.items()})
        refuse(
            IncompatibleWeights,
            {
                "not in the base": [name for name in tensors if name not in spans],
                "of another dtype or shape": [
                    name
                    for name, tensor in tensors.items()
                    if name in spans
                    and (tensor.span.dtype, tensor.span.shape) != ("BF16", spans[name].shape)
                ],
            },
        )
        return DeltaUpdate(tensors)

    def max_bytes(self, base: Mapping[str, TensorSpan]) -> int:
        """Return how many bytes the file of an update of the tensors `base` has at most."""
        spans = changeable(base)
        return len(self._header(spans)) + 2 * sum(span.elements for span in spans.values())

    def _header(self, spans: Mapping[str, TensorSpan]) -> bytes:
        return build_header((name, "BF16", span.shape) for name, span in spans.items())


@dataclass(frozen=True)
class DeltaUpdate:
    """
    An `UpdateReader` of stored differences.

    NaN and infinity come out as they are: screening tells them, and fusing names the contribution.

    Attributes:
        tensors: differences by name; of those that are missing they are zero.
    """

    tensors: Tensors

    @property
    def names(self) -> Collection[str]:
        """The tensors that it may have changed; the update of every other is zero."""
        return self.tensors.keys()

    def read(self, span: TensorSpan, start: int, stop: int, out: Floats, scratch: Scratch) -> None:
        """Write elements `start` to `stop` of the update into `out`, (stop - start,)."""
        if span.name in self.tensors:
            out[:] = self.tensors[span.name].values(start, stop, scratch.raw(stop - start))
        else:
            out[:] = 0

    def terms(self, span: TensorSpan) -> list[Term] | None:
        """Return the difference alone: no base is read for it."""
        return [(1.0, self.tensors[span.name])] if span.name in self.tensors else None


@dataclass(frozen=True)
class _Rounded:
    chunk: Chunk
    values: npt.NDArray[Any]
    sums: Sums


class _Worker(local):
    """One thread's part of encoding."""

    def __init__(self, difference: Difference) -> None:
        self.difference = difference

    def __call__(self, chunk: Chunk) -> _Rounded:
        values = self.difference.read(chunk)
        rounded = np.clip(values, -_LARGEST, _LARGEST).astype(ml_dtypes.bfloat16)
        return _Rounded(chunk, rounded, compare(values, rounded.astype(np.float32)))
