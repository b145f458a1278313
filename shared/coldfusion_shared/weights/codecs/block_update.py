"""The reader of an update that is encoded in blocks: any span, checked block by block."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from coldfusion_shared.errors import IncompatibleWeights, MalformedWeights, UndecodableUpdate
from coldfusion_shared.fusion.updates import Floats, Scratch
from coldfusion_shared.weights.checkpoint import (
    CHUNK_ELEMENTS,
    ByteSource,
    Checkpoint,
    StoredTensor,
)
from coldfusion_shared.weights.codecs.blocks import (
    INDEX,
    Block,
    block_count,
    blocks_of,
    row_elements,
    worst_block,
)
from coldfusion_shared.weights.codecs.encoding import changeable, refuse
from coldfusion_shared.weights.codecs.frames import decompress, unfinished
from coldfusion_shared.weights.header import TensorSpan

if TYPE_CHECKING:
    from coldfusion_shared.weights.codecs.block_encoding import BlockEncoding

# Frames are found from the nearest of these on: a place for each would be four times as large.
ANCHOR_BLOCKS = 64

# No two readers of a process have the same; an id would be used again.
_serials = count()


@dataclass(frozen=True)
class _Frames:
    """
    Where the frames of one tensor are.

    Attributes:
        data: the frames, one after another.
        elements: values of the tensor.
        row: values of one of its rows.
        lengths: bytes of each frame, U16.
        anchors: where every ANCHOR_BLOCKS-th frame starts, (ceil(blocks / ANCHOR_BLOCKS),).
    """

    data: StoredTensor
    elements: int
    row: int
    lengths: npt.NDArray[np.uint16]
    anchors: npt.NDArray[np.int64]

    @classmethod
    def read(cls, span: TensorSpan, index: StoredTensor, data: StoredTensor) -> _Frames:
        """Read the index of the tensor `span`."""
        lengths = index.values(0, index.span.elements)
        groups = np.arange(0, lengths.size, ANCHOR_BLOCKS)
        sizes = np.add.reduceat(lengths, groups, dtype=np.int64) if lengths.size else groups
        anchors = np.cumsum(sizes) - sizes
        return cls(data, span.elements, row_elements(span.shape), lengths, anchors)

    @property
    def total(self) -> int:
        """Bytes of all frames."""
        return int(self.lengths.sum(dtype=np.int64))

    def start(self, place: int) -> int:
        """Return where the frame with the number `place` starts."""
        anchor = place // ANCHOR_BLOCKS
        before = self.lengths[anchor * ANCHOR_BLOCKS : place]
        return int(self.anchors[anchor]) + int(before.sum(dtype=np.int64))


class BlockUpdate:
    """An `UpdateReader` that gives the same bits however the spans are cut."""

    def __init__(
        self, encoding: BlockEncoding, source: ByteSource, base: Mapping[str, StoredTensor]
    ) -> None:
        """
        Check the header of `source` and its index against `base`.

        Raises:
            IncompatibleWeights: it has tensors that are not in the base.
            MalformedWeights: header or index is wrong; the tensors are named.
        """
        self.encoding = encoding
        self._serial = next(_serials)
        tensors = Checkpoint({encoding.files[0]: source}).tensors
        spans = changeable({name: tensor.span for name, tensor in base.items()})
        self._check_header(tensors, spans)
        self._frames = {
            name: _Frames.read(span, tensors[f"{INDEX}:{name}"], tensors[self._data(name)])
            for name, span in spans.items()
            if f"{INDEX}:{name}" in tensors
        }
        self._check_index()

    @property
    def names(self) -> Collection[str]:
        """The tensors that it may have changed; the update of every other is zero."""
        return self._frames.keys()

    def read(self, span: TensorSpan, start: int, stop: int, out: Floats, scratch: Scratch) -> None:
        """
        Write elements `start` to `stop` of the decoded update into `out`, (stop - start,).

        Raises:
            UndecodableUpdate: a block is not what it should be; it and the tensor are named.
        """
        frames = self._frames.get(span.name)
        if frames is None:
            out[:] = 0
            return
        # A whole tensor's contents are more than anyone wants to hold.
        for low in range(start, stop, CHUNK_ELEMENTS):
            high = min(low + CHUNK_ELEMENTS, stop)
            self._read(span.name, frames, low, high, out[low - start : high - start], scratch)

    def terms(self, span: TensorSpan) -> None:
        """Return null: it is no sum of stored tensors."""
        return

    def _read(
        self, name: str, frames: _Frames, start: int, stop: int, out: Floats, scratch: Scratch
    ) -> None:
        blocks = list(blocks_of(start, stop, frames.elements, frames.row))
        contents = self._contents(name, frames, blocks, scratch)
        for (place, block), content in zip(blocks, contents, strict=True):
            low, high = max(block.start, start), min(block.stop, stop)
            self.encoding.unpack(content, block, low, high, out[low - start : high - start])
            if high < block.stop:
                unfinished.keep((self._serial, name), place, content)

    def _contents(
        self, name: str, frames: _Frames, blocks: list[tuple[int, Block]], scratch: Scratch
    ) -> list[bytes]:
        """Return the checked contents of neighbouring blocks, read at once."""
        if not blocks:
            return []
        known = unfinished.take((self._serial, name), blocks[0][0])
        if known is not None:
            return [known, *self._contents(name, frames, blocks[1:], scratch)]
        first = blocks[0][0]
        lengths = frames.lengths[first : first + len(blocks)].tolist()
        # A buffer of the scratch is measured in values of 8 bytes.
        buffer = scratch.raw(-(-sum(lengths) // 8))
        start = frames.start(first)
        raw = frames.data.values(start, start + sum(lengths), buffer)
        contents, offset = [], 0
        for (place, block), length in zip(blocks, lengths, strict=True):
            contents.append(self._content(name, place, block, raw[offset : offset + length]))
            offset += length
        return contents

    def _content(self, name: str, place: int, block: Block, frame: npt.NDArray[np.uint8]) -> bytes:
        try:
            content = decompress(frame, *self.encoding.content_bytes(block))
            self.encoding.check(content, block)
        except UndecodableUpdate as error:
            raise UndecodableUpdate(
                f"Block {place} of tensor {name!r} {error.message}.",
                hint="Encode the update again with coldfusion-client.",
                tensors=[name],
            ) from None
        return content

    def _check_header(
        self, tensors: Mapping[str, StoredTensor], spans: Mapping[str, TensorSpan]
    ) -> None:
        """Check names, companions, dtypes and shapes."""
        index: set[str] = set()
        data: set[str] = set()
        unknown = []
        for full_name in tensors:
            kind, _, name = full_name.partition(":")
            if name not in spans or kind not in (INDEX, self.encoding.name):
                unknown.append(full_name)
            else:
                (index if kind == INDEX else data).add(name)
        refuse(IncompatibleWeights, {f"not in the base or not {self.encoding.name}": unknown})
        refuse(MalformedWeights, {"without a companion": sorted(index ^ data)})
        wrong = []
        for name in index:
            lengths, frames = tensors[f"{INDEX}:{name}"].span, tensors[self._data(name)].span
            blocks = block_count(spans[name].elements)
            if (lengths.dtype, lengths.shape) != ("U16", (blocks,)):
                wrong.append(lengths.name)
            if frames.dtype != "U8" or len(frames.shape) != 1:
                wrong.append(frames.name)
        refuse(MalformedWeights, {"of another dtype or number of blocks": sorted(wrong)})

    def _data(self, name: str) -> str:
        return f"{self.encoding.name}:{name}"

    def _check_index(self) -> None:
        """Check that each tensor's index and its frames are of the same length."""
        wrong = []
        for name, frames in self._frames.items():
            longest = self.encoding.max_frame(worst_block(frames.elements, frames.row))
            fits = frames.total == frames.data.span.elements
            if not fits or (frames.lengths.size and not _within(frames.lengths, longest)):
                wrong.append(name)
        refuse(MalformedWeights, {"with an index that does not fit the data": wrong})


def _within(lengths: npt.NDArray[np.uint16], longest: int) -> bool:
    return bool(lengths.min() > 0) and bool(lengths.max() <= longest)
