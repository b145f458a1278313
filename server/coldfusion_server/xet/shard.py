"""
A shard: which pieces of which xorbs make up which files. Pure.

All of it is records of 48 bytes, numbers with the low byte first: a header; the files, each a head,
its segments, if they are said to be there as many hashes of them, and the SHA-256; an end mark; and
what the new xorbs are made of, of which nothing is needed, with an end mark of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from coldfusion_server.xet.xorb import MAX_PIECE_BYTES, MAX_PIECES
from coldfusion_shared.errors import InvalidRequest, TooLarge

RECORD_BYTES = 48
MAGIC = b"HFRepoMetaData\0UigEj{\x81W\x83\xa5\xbd\xd9\\\xcd\xd1J\xa9"
VERSION = 2
# As large as clients make them; a shard of 64 MiB is of some 80 GB.
MAX_SHARD_BYTES = 64 * 2**20
# What is kept in memory of one.
MAX_SEGMENTS = 100_000
MAX_FILES = 100

_END = b"\xff" * 32
_HEADER = struct.Struct("<32sQQ")
_HEAD = struct.Struct("<32sIIQ")
_SEGMENT = struct.Struct("<32sIIII")
_WITH_HASHES = 1 << 31
_WITH_SHA256 = 1 << 30


@dataclass(frozen=True)
class Segment:
    """
    Pieces of one xorb that follow each other in a file.

    Attributes:
        xorb: the xorb's hash, as its address has it.
        first: number of the first piece.
        past: number behind the last one.
        size: what they become, in bytes.
    """

    xorb: str
    first: int
    past: int
    size: int


@dataclass(frozen=True)
class ShardFile:
    """
    A file, as its segments make it up.

    Attributes:
        sha256: of its bytes, as its sender says; null: nothing was said.
        segments: in their order; none: it is empty.
    """

    sha256: str | None
    segments: list[Segment] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return sum(segment.size for segment in self.segments)


def hash_text(raw: bytes) -> str:
    """Return a hash as addresses have it: four numbers, each written with its high digit first."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


def read_shard(raw: bytes) -> list[ShardFile]:
    """Return the files of a whole shard; raises as `ShardReader` does."""
    reader = ShardReader()
    reader.feed(raw)
    return reader.finish()


class ShardReader:
    """Reads a shard as it arrives, and keeps of it what files are made of."""

    def __init__(self) -> None:
        """Begin before the header."""
        self._buffer = bytearray()
        self._take: Callable[[bytes], None] = self._take_header
        self._skipped = 0
        self._left = 0
        self._hashes = 0
        self._has_sha256 = False
        self._segments: list[Segment] = []
        self._kept = 0
        self._taken = 0
        self._files: list[ShardFile] = []
        self._is_over = False

    def feed(self, data: bytes) -> None:
        """
        Take the next bytes.

        Raises:
            InvalidRequest: this is no shard.
            TooLarge: it is longer than a shard, or names more than can be kept in memory.
        """
        self._taken += len(data)
        if self._taken > MAX_SHARD_BYTES:
            raise TooLarge(f"A shard has at most {MAX_SHARD_BYTES} bytes.")
        if self._is_over:
            return  # Behind the last mark older clients send tables to search in.
        self._buffer += data
        at = 0
        while not self._is_over and len(self._buffer) - at >= RECORD_BYTES:
            if self._skipped:
                step = min(self._skipped, (len(self._buffer) - at) // RECORD_BYTES)
                self._skipped -= step
                at += step * RECORD_BYTES
                continue
            self._take(bytes(self._buffer[at : at + RECORD_BYTES]))
            at += RECORD_BYTES
        del self._buffer[:at]

    def finish(self) -> list[ShardFile]:
        """Say that all has come, and return the files; raises `InvalidRequest` if it is cut off."""
        if not self._is_over:
            raise InvalidRequest("The shard is not whole.")
        return self._files

    def _take_header(self, record: bytes) -> None:
        magic, version, _ = _HEADER.unpack(record)
        if magic != MAGIC or version != VERSION:
            raise InvalidRequest("This is no shard of a version that is known here.")
        self._take = self._take_head

    def _take_head(self, record: bytes) -> None:
        mark, flags, count, _ = _HEAD.unpack(record)
        if mark == _END:
            self._take = self._take_xorb
            return
        if flags & ~(_WITH_HASHES | _WITH_SHA256):
            raise InvalidRequest("A file of the shard has what is not known here.")
        self._kept += count
        if len(self._files) >= MAX_FILES or self._kept > MAX_SEGMENTS:
            raise TooLarge(
                f"The shard names more than {MAX_FILES} files or {MAX_SEGMENTS} segments.",
                hint="Send fewer files at a time.",
            )
        self._left, self._segments = count, []
        self._hashes = count if flags & _WITH_HASHES else 0
        self._has_sha256 = bool(flags & _WITH_SHA256)
        self._go_on()

    def _take_segment(self, record: bytes) -> None:
        xorb, _, size, first, past = _SEGMENT.unpack(record)
        pieces = past - first
        if not (0 <= first < past <= MAX_PIECES and pieces <= size <= pieces * MAX_PIECE_BYTES):
            raise InvalidRequest(f"Pieces {first} to {past} of a xorb cannot be {size} bytes.")
        self._segments.append(Segment(hash_text(xorb), first, past, size))
        self._left -= 1
        self._go_on()

    def _take_sha256(self, record: bytes) -> None:
        self._files.append(ShardFile(hash_text(record[:32]), self._segments))
        self._take = self._take_head

    def _go_on(self) -> None:
        """Choose what comes next of a file."""
        if self._left:
            self._take = self._take_segment
            return
        self._skipped = self._hashes
        if self._has_sha256:
            self._take = self._take_sha256
            return
        self._files.append(ShardFile(None, self._segments))
        self._take = self._take_head

    def _take_xorb(self, record: bytes) -> None:
        mark, _, count, _ = _HEAD.unpack(record)
        self._is_over = mark == _END
        self._skipped = 0 if self._is_over else count
