"""The new file out of the old one and a difference: as a stream, and verified."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from coldfusion_shared.errors import DigestMismatch, MalformedWeights, UndecodableUpdate
from coldfusion_shared.fusion.executor import Executor, Serial
from coldfusion_shared.weights.checkpoint import ByteSource
from coldfusion_shared.weights.codecs.encoding import Progress, silent
from coldfusion_shared.weights.codecs.frames import decompress
from coldfusion_shared.weights.differences.container import (
    HEAD_BYTES,
    PREAMBLE_BYTES,
    WHOLE,
    Head,
    Kind,
    Pair,
)
from coldfusion_shared.weights.differences.moves import Bytes, unpack
from coldfusion_shared.weights.differences.write import Write


class Readable(Protocol):
    """What a difference is read from, such as an open file."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, and none only at the end."""


def apply_difference(
    old: ByteSource,
    difference: Readable,
    pair: Pair,
    write: Write,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> None:
    """
    Write the new file.

    Whoever calls uses what was written only when this has returned: the digest is known last. A
    few blocks of at most 1 MiB for each thread are held in memory, whatever the difference says.

    Args:
        old: the old file. Only its size is looked at; were its bytes others, so is the result.
        difference: the difference, read to its end.
        pair: sizes and digests that the two files must have.
        write: called with the bytes of the new file, one part after another.
        executor: works on the blocks.
        progress: called with the number of bytes of each part of the new file.

    Raises:
        MalformedWeights: the difference is none, is cut off or damaged, or has a block that cannot
            be; or `old` cannot be read.
        DigestMismatch: `old`, the difference or the result is not of `pair`.
    """
    if old.size != pair.old_size:
        raise DigestMismatch(
            f"The old file has {old.size} bytes; the difference is from one of {pair.old_size}.",
            hint=WHOLE,
        )
    Pair.parse(_read(difference, PREAMBLE_BYTES)).check(pair)
    digest = hashlib.sha256()
    for part in (executor or Serial()).map(_Maker(old), _blocks(difference, pair)):
        digest.update(part.data)
        write(part.data)
        progress(part.size)
    if digest.hexdigest() != pair.new_sha256:
        raise DigestMismatch(
            "What the difference makes of the old file is not the new one.",
            hint=f"One of the two is damaged. {WHOLE}",
        )


@dataclass(frozen=True)
class _Block:
    number: int
    head: Head
    payload: bytes


class _Maker:
    """Makes parts of the new file of blocks; several threads may use it."""

    def __init__(self, old: ByteSource) -> None:
        self.old = old

    def __call__(self, block: _Block) -> Bytes:
        head, payload = block.head, np.frombuffer(block.payload, np.uint8)
        if head.kind == Kind.RAW:
            return payload
        if head.kind == Kind.COPY:
            return self._old(head)
        try:
            content = decompress(payload, head.size, head.size)
        except UndecodableUpdate as error:
            raise _malformed(block.number, f"has a frame that {error.message}") from None
        if head.kind == Kind.ZSTD:
            return np.frombuffer(content, np.uint8)
        return unpack(head.kind, self._old(head), content)

    def _old(self, head: Head) -> Bytes:
        raw = np.empty(head.size, np.uint8)
        self.old.read_into(head.start, raw.data)
        return raw


def _blocks(difference: Readable, pair: Pair) -> Iterator[_Block]:
    """Yield the blocks that make the new file; each is checked before its payload is read."""
    number, left = 0, pair.new_size
    while left:
        raw = _read(difference, HEAD_BYTES)
        if len(raw) < HEAD_BYTES:
            raise _malformed(number, "is missing: the difference is cut off")
        try:
            head = Head.parse(raw, pair.old_size, left)
        except MalformedWeights as error:
            raise _malformed(number, error.message) from None
        payload = _read(difference, head.payload)
        if len(payload) < head.payload:
            raise _malformed(number, "ends too early: the difference is cut off")
        yield _Block(number, head, payload)
        number, left = number + 1, left - head.size
    if difference.read(1):
        raise MalformedWeights("The difference goes on after its last block.", hint=WHOLE)


def _read(difference: Readable, size: int) -> bytes:
    """Return the next `size` bytes, or as many as there are."""
    parts = []
    while size and (part := difference.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _malformed(number: int, what: str) -> MalformedWeights:
    return MalformedWeights(f"Block {number} of the difference {what}.", hint=WHOLE)
