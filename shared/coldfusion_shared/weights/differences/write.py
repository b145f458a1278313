"""Writing a difference: as a stream, piece by piece, each in the form that is smallest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from coldfusion_shared.errors import DigestMismatch
from coldfusion_shared.fusion.executor import Executor, Serial
from coldfusion_shared.weights.checkpoint import ByteSource
from coldfusion_shared.weights.codecs.encoding import Progress, silent
from coldfusion_shared.weights.codecs.frames import compress
from coldfusion_shared.weights.differences.container import Head, Kind, Pair
from coldfusion_shared.weights.differences.moves import Bytes, pack
from coldfusion_shared.weights.differences.pieces import Piece, pieces

Write = Callable[[bytes | memoryview], object]

# A difference smaller than this part of the bytes is taken without a look at what they take by
# themselves: floats take more, and to try costs as much as all the rest.
_PAYS = 0.75


def write_difference(
    old: ByteSource,
    new: ByteSource,
    pair: Pair,
    write: Write,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> int:
    """
    Write what makes `new` of `old`, and return how many bytes that are.

    A few pieces of at most 1 MiB for each thread are held in memory, however large the files are.

    Args:
        old: the old file.
        new: the new one, read from its beginning to its end.
        pair: their sizes and digests. That `new` has its digest is verified; `old` is not hashed.
        write: called with the bytes, one part after another.
        executor: works on the pieces.
        progress: called with the number of bytes of each piece of `new` that was written.

    Raises:
        DigestMismatch: the files are not the ones that `pair` says. What was written is void.
        MalformedWeights: one of them cannot be read.
    """
    if (old.size, new.size) != (pair.old_size, pair.new_size):
        raise _not_the_pair(f"have {old.size} and {new.size} bytes")
    preamble = pair.preamble()
    write(preamble)
    size, digest = len(preamble), hashlib.sha256()
    for block in (executor or Serial()).map(_Writer(old, new), pieces(old, new)):
        digest.update(block.new.data)
        write(block.head.pack())
        write(block.payload)
        size += len(block.head.pack()) + len(block.payload)
        progress(block.head.size)
    if digest.hexdigest() != pair.new_sha256:
        raise _not_the_pair(f"lead to SHA-256 {digest.hexdigest()[:12]}")
    return size


@dataclass(frozen=True)
class _Block:
    head: Head
    payload: bytes
    new: Bytes


class _Writer:
    """Makes blocks of pieces; several threads may use it."""

    def __init__(self, old: ByteSource, new: ByteSource) -> None:
        self.old, self.new = old, new

    def __call__(self, piece: Piece) -> _Block:
        new = _read(self.new, piece.start, piece.stop - piece.start)
        head, payload = self._smallest(piece, new)
        return _Block(head, payload, new)

    def _smallest(self, piece: Piece, new: Bytes) -> tuple[Head, bytes]:
        if piece.old is None:
            return _alone(new)
        old = _read(self.old, piece.old, new.size)
        if np.array_equal(old, new):
            return Head(Kind.COPY, new.size, 0, piece.old), b""
        frame = compress(pack(piece.kind, old, new))
        moved = Head(piece.kind, new.size, len(frame), piece.old), frame
        if len(frame) < _PAYS * new.size:
            return moved
        alone = _alone(new)
        return moved if len(frame) < len(alone[1]) else alone


def _alone(new: Bytes) -> tuple[Head, bytes]:
    raw = new.tobytes()
    frame = compress([raw])
    if len(frame) < len(raw):
        return Head(Kind.ZSTD, len(raw), len(frame)), frame
    return Head(Kind.RAW, len(raw), len(raw)), raw


def _read(source: ByteSource, start: int, size: int) -> Bytes:
    raw = np.empty(size, np.uint8)
    source.read_into(start, raw.data)
    return raw


def _not_the_pair(what: str) -> DigestMismatch:
    return DigestMismatch(
        f"The files are not the ones that the difference is for: they {what}.",
        hint="Look at the store: an object there is not what its name says.",
    )
