"""How the new file is cut, and what of the old one each piece is compared to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from coldfusion_shared.errors import MalformedWeights
from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS, ByteSource, Checkpoint
from coldfusion_shared.weights.differences.container import Kind
from coldfusion_shared.weights.header import Header, TensorSpan

PIECE_BYTES = 2**19


@dataclass(frozen=True)
class Piece:
    """
    Bytes `start` to `stop` of the new file.

    Attributes:
        start: first byte.
        stop: the byte after the last one.
        kind: how a difference from the old file's bytes is written.
        old: where in the old file its counterpart begins; null: it has none.
    """

    start: int
    stop: int
    kind: Kind = Kind.BYTES
    old: int | None = None


def pieces(old: ByteSource, new: ByteSource) -> Iterator[Piece]:
    """Yield pieces of `new` from its first byte to its last."""
    before, after = _header(old), _header(new)
    if before is None or after is None:
        yield from _in_place(old.size, new.size)
        return
    yield from _in_place(before.data_start, after.data_start)
    spans = {span.name: span for span in before.tensors}
    for span in after.tensors:
        yield from _tensor(span, spans.get(span.name))


def _header(source: ByteSource) -> Header | None:
    try:
        return Checkpoint({"": source}).headers[""]
    except MalformedWeights:
        return None


def _in_place(old: int, new: int) -> Iterator[Piece]:
    """Compare two beginnings of files, of `old` and `new` bytes, byte by byte."""
    both = min(old, new)
    for start, stop in _cut(0, both, PIECE_BYTES):
        yield Piece(start, stop, old=start)
    for start, stop in _cut(both, new, PIECE_BYTES):
        yield Piece(start, stop)


def _tensor(span: TensorSpan, before: TensorSpan | None) -> Iterator[Piece]:
    kind = Kind[span.dtype] if span.is_float else Kind.BYTES
    size = CHUNK_ELEMENTS * kind.item_bytes if span.is_float else PIECE_BYTES
    same = before is not None and (before.dtype, before.shape) == (span.dtype, span.shape)
    for start, stop in _cut(span.start, span.stop, size):
        # Where tensors of the new file lie elsewhere, their counterparts do, too.
        counterpart = before.start + start - span.start if before is not None and same else None
        yield Piece(start, stop, kind, counterpart)


def _cut(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    for place in range(start, stop, size):
        yield place, min(place + size, stop)
