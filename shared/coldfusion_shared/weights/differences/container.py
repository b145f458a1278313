"""What a difference is made of: the preamble, and blocks, each with a head."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Self

from coldfusion_shared.errors import DigestMismatch, MalformedWeights
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.weights.header import ITEM_BYTES

MAX_BLOCK_BYTES = 2**20
WHOLE = "Take the whole file instead."

_MAGIC, _VERSION = b"CFDIFF", 1
_PREAMBLE = Struct("<6sHQQ32s32s")
_HEAD = Struct("<BIIQ")
PREAMBLE_BYTES, HEAD_BYTES = _PREAMBLE.size, _HEAD.size


class Kind(IntEnum):
    """How a block makes its part of the new file."""

    COPY = 0
    RAW = 1
    ZSTD = 2
    BYTES = 3
    F64 = 4
    F32 = 5
    F16 = 6
    BF16 = 7

    @property
    def has_old(self) -> bool:
        """Whether it builds on bytes of the old file."""
        return self not in (Kind.RAW, Kind.ZSTD)

    @property
    def item_bytes(self) -> int:
        """Bytes that belong together."""
        return ITEM_BYTES.get(self.name, 1)


@dataclass(frozen=True)
class Pair:
    """Which file becomes which: sizes in bytes, SHA-256 in hexadecimal."""

    old_size: int
    old_sha256: str
    new_size: int
    new_sha256: str

    @classmethod
    def of(cls, old: FileEntry, new: FileEntry) -> Self:
        """Return the pair of two files of manifests."""
        return cls(old.size, old.sha256, new.size, new.sha256)

    def preamble(self) -> bytes:
        """Return the first bytes of a difference."""
        return _PREAMBLE.pack(
            _MAGIC,
            _VERSION,
            self.old_size,
            self.new_size,
            bytes.fromhex(self.old_sha256),
            bytes.fromhex(self.new_sha256),
        )

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """
        Return what `raw`, the first bytes of a difference, says.

        Raises:
            MalformedWeights: it is no difference, or one of a later version.
        """
        if not raw.startswith(_MAGIC):
            raise MalformedWeights("The file is no difference between two files.", hint=WHOLE)
        if len(raw) < PREAMBLE_BYTES:
            raise MalformedWeights("The difference ends in its first bytes.", hint=WHOLE)
        _, version, old_size, new_size, old, new = _PREAMBLE.unpack(raw)
        if version != _VERSION:
            raise MalformedWeights(
                f"The difference is of version {version}; only {_VERSION} is known here.",
                hint=WHOLE,
            )
        return cls(old_size, old.hex(), new_size, new.hex())

    def check(self, expected: Pair) -> None:
        """Raise `DigestMismatch` unless this, of a difference, is the `expected` pair."""
        for which, said, wanted in (
            ("from", (self.old_size, self.old_sha256), (expected.old_size, expected.old_sha256)),
            ("to", (self.new_size, self.new_sha256), (expected.new_size, expected.new_sha256)),
        ):
            if said != wanted:
                raise DigestMismatch(
                    f"The difference leads {which} {said[1][:12]} ({said[0]} bytes), and not "
                    f"{which} {wanted[1][:12]} ({wanted[0]} bytes).",
                    hint=WHOLE,
                )


@dataclass(frozen=True)
class Head:
    """
    The head of a block.

    Attributes:
        kind: how it makes its part.
        size: bytes of the new file.
        payload: bytes that follow the head.
        start: where in the old file the bytes begin that it builds on.
    """

    kind: Kind
    size: int
    payload: int
    start: int = 0

    def pack(self) -> bytes:
        """Return it as it is written."""
        return _HEAD.pack(self.kind, self.size, self.payload, self.start)

    @classmethod
    def parse(cls, raw: bytes, old_size: int, room: int) -> Self:
        """
        Return the head that `raw`, of HEAD_BYTES, is.

        Args:
            raw: the bytes.
            old_size: bytes of the old file.
            room: bytes of the new file that are not made yet.

        Raises:
            MalformedWeights: no block can have it; the message is a part of a sentence.
        """
        kind, size, payload, start = _HEAD.unpack(raw)
        if kind not in list(Kind):
            raise MalformedWeights(f"is of a kind that is not known: {kind}")
        head = cls(Kind(kind), size, payload, start)
        head._check(old_size, room)
        return head

    def _check(self, old_size: int, room: int) -> None:
        if not 0 < self.size <= min(room, MAX_BLOCK_BYTES):
            raise MalformedWeights(
                f"claims to make {self.size} bytes where {min(room, MAX_BLOCK_BYTES)} are the most"
            )
        if self.size % self.kind.item_bytes:
            raise MalformedWeights(f"makes {self.size} bytes, which are no whole {self.kind.name}")
        if not self._fits():
            raise MalformedWeights(
                f"claims a payload of {self.payload} bytes to make {self.size} as {self.kind.name}"
            )
        if self.start + self.size > old_size if self.kind.has_old else self.start:
            raise MalformedWeights(
                f"builds on the bytes from {self.start} on of an old file of {old_size}"
            )

    def _fits(self) -> bool:
        """Return whether the payload has a length that its kind can have."""
        if self.kind == Kind.COPY:
            return self.payload == 0
        if self.kind == Kind.RAW:
            return self.payload == self.size
        return 0 < self.payload < self.size
