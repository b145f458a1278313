"""
A xorb: pieces of files, each with a header of 8 bytes, compressed for itself. Pure.

A header is a version, the stored length, how the piece is compressed, and its own length; lengths
are 24-bit numbers, the low byte first. Behind the last piece there may be a footer, of which
nothing is needed.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import lz4.frame
import numpy as np

from coldfusion_shared.errors import InvalidRequest, TooLarge

HEADER_BYTES = 8
# As the format has it; it is also what keeps a piece of a few bytes from becoming gigabytes.
MAX_PIECE_BYTES = 128 * 2**10
MAX_PIECES = 8192
# What may stand behind the pieces: hashes and lengths of each.
MAX_FOOTER_BYTES = 2**20
FOOTER = b"XETBLOB"
# 64 MiB of pieces that could not be compressed, with their headers.
MAX_PIECES_BYTES = 64 * 2**20 + MAX_PIECES * HEADER_BYTES
MAX_XORB_BYTES = MAX_PIECES_BYTES + MAX_FOOTER_BYTES
RAW, LZ4, GROUPED_LZ4 = range(3)
# Of the numbers that `GROUPED_LZ4` takes apart, so that bytes alike come beside each other.
GROUP = 4


@dataclass(frozen=True)
class Header:
    """What stands before a piece: how it is compressed, and its lengths in bytes."""

    kind: int
    stored: int
    size: int


def read_header(raw: bytes) -> Header:
    """Read the `HEADER_BYTES` before a piece; raises `InvalidRequest`, also where one lies."""
    version, kind = raw[0], raw[4]
    stored = int.from_bytes(raw[1:4], "little")
    size = int.from_bytes(raw[5:8], "little")
    if version != 0 or kind > GROUPED_LZ4:
        raise InvalidRequest(f"A piece of version {version} and kind {kind} is not known here.")
    # Whatever compression would make larger is sent as it is.
    if not 0 < size <= MAX_PIECE_BYTES or not 0 < stored <= size:
        raise InvalidRequest(f"A piece of {stored} bytes that becomes {size} is none.")
    if kind == RAW and stored != size:
        raise InvalidRequest("A piece that is not compressed has two lengths.")
    return Header(kind, stored, size)


def decode(piece: memoryview) -> bytes:
    """
    Return the bytes of one piece, which comes with its header.

    Raises:
        InvalidRequest: it does not become what its header says.
    """
    header = read_header(bytes(piece[:HEADER_BYTES]))
    data = piece[HEADER_BYTES:]
    if len(data) != header.stored:
        raise InvalidRequest("A piece is not as long as its header says.")
    if header.kind == RAW:
        return bytes(data)
    unpacked = _unpacked(data, header.size)
    return _joined(unpacked) if header.kind == GROUPED_LZ4 else unpacked


@dataclass(frozen=True)
class Index:
    """
    Where the pieces of a xorb are.

    Attributes:
        ends: by piece, where it ends among the stored bytes.
        unpacked_ends: by piece, where it ends in what all of them become.
    """

    ends: Sequence[int]
    unpacked_ends: Sequence[int]

    @property
    def stored(self) -> int:
        """Bytes of all pieces, with their headers."""
        return self.ends[-1]

    def starts_at(self, piece: int) -> int:
        """Return where a piece begins among the stored bytes; of the last one, where it ends."""
        return self.ends[piece - 1] if piece else 0

    def size(self, first: int, past: int) -> int:
        """Return what the pieces from `first` to before `past` become, in bytes."""
        return self.unpacked_ends[past - 1] - (self.unpacked_ends[first - 1] if first else 0)

    def to_bytes(self) -> bytes:
        """Return it as `from_bytes` reads it: 8 bytes for each piece."""
        pairs = zip(self.ends, self.unpacked_ends, strict=True)
        return b"".join(struct.pack("<II", *pair) for pair in pairs)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Index:
        """Read what `to_bytes` wrote."""
        pairs = list(struct.iter_unpack("<II", raw))
        return cls([end for end, _ in pairs], [end for _, end in pairs])


# Of an index, for each piece.
INDEX_BYTES = struct.calcsize("<II")


class Walker:
    """Goes along a xorb while it arrives, from header to header; the pieces stay as they are."""

    def __init__(self) -> None:
        """Begin before the first piece."""
        self._header = bytearray()
        self._left = 0
        self._taken = 0
        self._unpacked = 0
        self._footer: bytearray | None = None
        # By piece: where it ends among the stored bytes, and in what they become.
        self._ends = array("I")
        self._unpacked_ends = array("I")

    def feed(self, data: bytes) -> bytes:
        """
        Take the next bytes; return those that are of pieces, a header once it is whole.

        Raises:
            InvalidRequest: this is no xorb.
            TooLarge: it has more bytes or pieces than a xorb may have.
        """
        kept, at = bytearray(), 0
        while at < len(data) and self._footer is None:
            step = min(self._left or HEADER_BYTES - len(self._header), len(data) - at)
            if self._left:
                kept += data[at : at + step]
                self._skip(step)
            else:
                self._header += data[at : at + step]
                kept += self._read_header()
            at += step
        if self._footer is not None:
            self._footer += data[at:]
            if len(self._footer) > MAX_FOOTER_BYTES:
                raise TooLarge("The footer of the xorb is too long.")
        return bytes(kept)

    def finish(self) -> Index:
        """
        Say that all has come, and return where the pieces are.

        Raises:
            InvalidRequest: it stops in the middle, or is empty.
        """
        footer = self._footer
        if footer is not None and int.from_bytes(footer[-4:], "little") != len(footer) - 4:
            raise InvalidRequest("The footer of the xorb is not whole.")
        if self._left or self._header or not self._ends:
            raise InvalidRequest("The xorb is not whole.")
        return Index(self._ends, self._unpacked_ends)

    def _read_header(self) -> bytes:
        """Return the header if it is whole; a footer begins as a header that nobody knows."""
        if len(self._header) < HEADER_BYTES:
            return b""
        raw = bytes(self._header)
        self._header.clear()
        if raw.startswith(FOOTER):
            self._footer = bytearray(raw)
            return b""
        header = read_header(raw)
        self._left = header.stored
        self._taken += HEADER_BYTES
        self._unpacked += header.size
        if len(self._ends) >= MAX_PIECES or self._taken + header.stored > MAX_PIECES_BYTES:
            raise TooLarge("The xorb has more pieces, or bytes, than a xorb may have.")
        return raw

    def _skip(self, step: int) -> None:
        self._left -= step
        self._taken += step
        if not self._left:
            self._ends.append(self._taken)
            self._unpacked_ends.append(self._unpacked)


def _unpacked(data: memoryview, size: int) -> bytes:
    """Return what an LZ4 frame holds; never more than one byte above `size` is unpacked."""
    frame = lz4.frame.LZ4FrameDecompressor()
    try:
        found: bytes = frame.decompress(bytes(data), max_length=size + 1)
    except RuntimeError:
        raise InvalidRequest("A piece is no LZ4 frame.") from None
    if len(found) != size or not frame.eof or frame.unused_data:
        raise InvalidRequest(f"A piece does not become the {size} bytes that it promises.")
    return found


def _joined(groups: bytes) -> bytes:
    """Return bytes in their order: they came sorted by their place within numbers of `GROUP`."""
    source = np.frombuffer(groups, np.uint8)
    joined = np.empty(len(groups), np.uint8)
    at = 0
    for place in range(GROUP):
        part = joined[place::GROUP]
        part[:] = source[at : at + len(part)]
        at += len(part)
    return joined.tobytes()
