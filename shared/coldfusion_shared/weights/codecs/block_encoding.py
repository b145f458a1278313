"""An encoding in blocks: its file is written in one pass, before the sizes of frames are known."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import local
from typing import BinaryIO

import numpy as np

from coldfusion_shared.fusion.executor import Executor, Serial
from coldfusion_shared.fusion.updates import Floats
from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS, ByteSource
from coldfusion_shared.weights.codecs.block_update import BlockUpdate
from coldfusion_shared.weights.codecs.blocks import (
    BLOCK_ELEMENTS,
    INDEX,
    Block,
    block_count,
    blocks_of,
    row_elements,
    worst_block,
)
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
    silent,
)
from coldfusion_shared.weights.codecs.frames import compress, max_frame
from coldfusion_shared.weights.header import TensorSpan, build_header, parse_header
from coldfusion_shared.weights.write import appearing_whole


class BlockEncoding(WeightsEncoding):
    """What the encodings in blocks have in common; each says what a block's content is."""

    files = (UPDATE_FILE,)

    @abstractmethod
    def pack(self, values: Floats, block: Block) -> list[bytes]:
        """Return the content of a block of `values`, (m,), finite, as parts of their own kind."""

    @abstractmethod
    def content_bytes(self, block: Block) -> tuple[int, int]:
        """Return how many bytes the content of a block has at least, and at most."""

    @abstractmethod
    def check(self, content: bytes, block: Block) -> None:
        """
        Check all that `unpack` relies on.

        Raises:
            UndecodableUpdate: it does not hold; the message is a part of a sentence.
        """

    @abstractmethod
    def unpack(self, content: bytes, block: Block, start: int, stop: int, out: Floats) -> None:
        """Write elements `start` to `stop` of the tensor, a part of the block, into `out`, (n,)."""

    def encode(
        self,
        finetuned: Tensors,
        base: Tensors,
        folder: Path,
        progress: Progress = silent,
        executor: Executor | None = None,
    ) -> Encoded:
        """
        Write the update; see `Encoding.encode`.

        The header comes first and says how long the frames are, which nobody knows before the
        last one is written. Numbers can only become shorter than those of the longest frames
        possible, so there is room left for these, and the header, written last, is filled up with
        spaces as the format allows. Nothing is computed or written twice.
        """
        names = changed(finetuned, base, progress)
        spans = {name: base[name].span for name in names}
        room = len(self._header(spans, {name: self._max_data(spans[name]) for name in names}))
        index_bytes = sum(2 * block_count(span.elements) for span in spans.values())
        worker = _Worker(self, Difference(finetuned, base))
        lengths: dict[str, list[int]] = {name: [] for name in names}
        sums = Sums()
        out = folder / UPDATE_FILE
        with appearing_whole(out) as file:
            file.seek(room + index_bytes)
            for packed in (executor or Serial()).map(worker, chunks_of(base, names)):
                file.writelines(packed.frames)
                lengths[packed.chunk.span.name] += map(len, packed.frames)
                sums += packed.sums
                progress(weight_bytes(finetuned, packed.chunk))
            size = file.tell()
            sizes = {name: sum(found) for name, found in lengths.items()}
            self._finish(file, self._header(spans, sizes), room, lengths)
        return Encoded.of(size, sums)

    def open(self, sources: Mapping[str, ByteSource], base: Tensors) -> BlockUpdate:
        """Return the reader of an update; see `Encoding.open`."""
        return BlockUpdate(self, self.source(sources), base)

    def max_bytes(self, base: Mapping[str, TensorSpan]) -> int:
        """Return how many bytes the file of an update of the tensors `base` has at most."""
        spans = {name: span for name, span in changeable(base).items() if span.elements}
        sizes = {name: self._max_data(span) for name, span in spans.items()}
        index = sum(2 * block_count(span.elements) for span in spans.values())
        return len(self._header(spans, sizes)) + index + sum(sizes.values())

    def max_frame(self, block: Block) -> int:
        """Return how many bytes the frame of a block has at most."""
        return max_frame(self.content_bytes(block)[1])

    def _max_data(self, span: TensorSpan) -> int:
        row = row_elements(span.shape)
        whole, rest = divmod(span.elements, BLOCK_ELEMENTS)
        size = whole * self.max_frame(worst_block(BLOCK_ELEMENTS, row))
        return size + (self.max_frame(worst_block(rest, row)) if rest else 0)

    def _header(self, spans: Mapping[str, TensorSpan], sizes: Mapping[str, int]) -> bytes:
        index = [
            (f"{INDEX}:{name}", "U16", (block_count(span.elements),))
            for name, span in spans.items()
        ]
        data = [(f"{self.name}:{name}", "U8", (sizes[name],)) for name in spans]
        header = build_header([*index, *data])
        # A base with names too long for a prefix is refused here, and not by those who get it.
        parse_header(header, len(header) + 2 * sum(n for *_, (n,) in index) + sum(sizes.values()))
        return header

    def _finish(
        self, file: BinaryIO, header: bytes, room: int, lengths: Mapping[str, Sequence[int]]
    ) -> None:
        file.seek(0)
        file.write((room - 8).to_bytes(8, "little") + header[8:].ljust(room - 8))
        for found in lengths.values():
            file.write(np.array(found, "<u2").tobytes())


@dataclass(frozen=True)
class _Packed:
    chunk: Chunk
    frames: list[bytes]
    sums: Sums


class _Worker(local):
    """One thread's part of encoding; a chunk is a whole number of blocks."""

    def __init__(self, encoding: BlockEncoding, difference: Difference) -> None:
        self.encoding = encoding
        self.difference = difference
        self.decoded = np.empty(CHUNK_ELEMENTS, np.float32)

    def __call__(self, chunk: Chunk) -> _Packed:
        values = self.difference.read(chunk)
        decoded = self.decoded[: values.size]
        frames = []
        row = row_elements(chunk.span.shape)
        for _, block in blocks_of(chunk.start, chunk.stop, chunk.span.elements, row):
            part = slice(block.start - chunk.start, block.stop - chunk.start)
            parts = self.encoding.pack(values[part], block)
            self.encoding.unpack(b"".join(parts), block, block.start, block.stop, decoded[part])
            frames.append(compress(parts))
        return _Packed(chunk, frames, compare(values, decoded))
