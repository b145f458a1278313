"""The finetuned weights themselves: nothing is lost."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from threading import local
from typing import Any

import numpy as np
import numpy.typing as npt

from coldfusion_shared.errors import IncompatibleWeights
from coldfusion_shared.fusion.executor import Executor, Serial
from coldfusion_shared.fusion.updates import FullUpdate
from coldfusion_shared.weights.body import base_names, is_head
from coldfusion_shared.weights.checkpoint import ByteSource, Checkpoint, StoredTensor
from coldfusion_shared.weights.codecs import encodings
from coldfusion_shared.weights.codecs.changes import (
    Chunk,
    Difference,
    Tensors,
    chunks_of,
    weight_bytes,
)
from coldfusion_shared.weights.codecs.encoding import (
    Encoded,
    Progress,
    Sums,
    WeightsEncoding,
    changeable,
    check_shapes,
    refuse,
    silent,
)
from coldfusion_shared.weights.header import ITEM_BYTES, TensorSpan, build_header
from coldfusion_shared.weights.layout import SINGLE_FILE
from coldfusion_shared.weights.write import appearing_whole


@encodings.register("full")
class Full(WeightsEncoding):
    """
    The weights, in the dtype that they were trained in, also those that did not change.

    So a model of fewer layers cannot pass for one whose other layers did not change. A task's model
    may come as it was saved, under its own names and with its head.
    """

    name = "full"
    files = (SINGLE_FILE,)

    def encode(
        self,
        finetuned: Tensors,
        base: Tensors,
        folder: Path,
        progress: Progress = silent,
        executor: Executor | None = None,
    ) -> Encoded:
        """Write all weights that are given; see `Encoding.encode`."""
        names = check_shapes(finetuned, base)
        worker = _Worker(finetuned, Difference(finetuned, base))
        out = folder / SINGLE_FILE
        with appearing_whole(out) as file:
            file.write(_header({name: finetuned[name].span for name in names}))
            for chunk, values in (executor or Serial()).map(worker, chunks_of(base, names)):
                # A view of bytes: numpy's bfloat16 has no buffer of its own.
                file.write(values.view(np.uint8).data)
                progress(weight_bytes(finetuned, chunk))
            size = file.tell()
        return Encoded.of(size, Sums())

    def open(self, sources: Mapping[str, ByteSource], base: Tensors) -> FullUpdate:
        """Return the reader of an update; see `Encoding.open`."""
        tensors = own_tensors(self.source(sources), base)
        spans = changeable({name: tensor.span for name, tensor in base.items()})
        refuse(
            IncompatibleWeights,
            {
                "not in the base": [
                    name for name in tensors if name not in base and not is_head(name)
                ],
                "of another shape or dtype": [
                    name
                    for name, tensor in tensors.items()
                    if name in spans and not _fits(tensor.span, spans[name])
                ],
            },
        )
        # What is missing is the base's own, so that its difference is zero.
        return FullUpdate({name: tensors.get(name, base[name]) for name in spans}, base)

    def max_bytes(self, base: Mapping[str, TensorSpan]) -> int:
        """Return how many bytes the file of an update of the tensors `base` has at most."""
        spans = changeable(base)
        # A bfloat16 base may be finetuned in float32.
        widest = {
            name: span if ITEM_BYTES[span.dtype] > 4 else replace(span, dtype="F32")
            for name, span in spans.items()
        }
        sizes = (ITEM_BYTES[span.dtype] * span.elements for span in widest.values())
        # "BF16" is one letter longer than "F32".
        return len(_header(widest)) + len(widest) + 8 + sum(sizes)


def own_tensors(source: ByteSource, base: Collection[str]) -> dict[str, StoredTensor]:
    """
    Return the tensors of a model that came whole, under the base's names; a task's head has none.

    Args:
        source: the file.
        base: names of the base's tensors.
    """
    tensors = Checkpoint({SINGLE_FILE: source}).tensors
    names = base_names(base, tensors)
    return {names[name]: tensor for name, tensor in tensors.items()}


def _header(spans: Mapping[str, TensorSpan]) -> bytes:
    return build_header((name, span.dtype, span.shape) for name, span in spans.items())


def _fits(span: TensorSpan, base: TensorSpan) -> bool:
    return span.shape == base.shape and span.dtype in {base.dtype, "F32"}


class _Worker(local):
    """One thread's part of encoding."""

    def __init__(self, finetuned: Tensors, difference: Difference) -> None:
        self.finetuned = finetuned
        self.difference = difference

    def __call__(self, chunk: Chunk) -> tuple[Chunk, npt.NDArray[Any]]:
        self.difference.read(chunk)
        return chunk, self.finetuned[chunk.span.name].values(chunk.start, chunk.stop)
