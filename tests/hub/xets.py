"""Xorbs and shards as tests want them, written apart from what reads them."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import lz4.frame

RAW, LZ4, GROUPED = 0, 1, 2
END = b"\xff" * 32 + b"\0" * 16
HEADER = bytes.fromhex("4846526570 6f4d6574614461746100 556967456a7b815783a5bdd95ccdd14aa9")


def piece(data: bytes, kind: int = RAW) -> bytes:
    """Return a piece with its header; what would not get smaller is sent as it is."""
    grouped = b"".join(data[place::4] for place in range(4)) if kind == GROUPED else data
    packed = data if kind == RAW else lz4.frame.compress(grouped)
    if len(packed) >= len(data):
        kind, packed = RAW, data
    return header(len(packed), kind, len(data)) + packed


def header(stored: int, kind: int, size: int, version: int = 0) -> bytes:
    """Return what stands before a piece."""
    lengths = stored.to_bytes(3, "little"), size.to_bytes(3, "little")
    return bytes([version]) + lengths[0] + bytes([kind]) + lengths[1]


def xorb_name(text: str) -> str:
    """Return the hash of a xorb: the server takes any."""
    return hashlib.sha256(text.encode()).hexdigest()


def raw_hash(name: str) -> bytes:
    """Return a hash as shards have it."""
    return struct.pack("<4Q", *(int(name[at : at + 16], 16) for at in range(0, 64, 16)))


@dataclass
class File:
    """A file for a shard: ranges of pieces, each with its xorb, and what they become in bytes."""

    ranges: list[tuple[str, int, int, int]] = field(default_factory=list)
    sha256: str | None = None
    hashes: bool = True
    flags: int = 0


def shard(files: Sequence[File], tail: bytes = END) -> bytes:
    """Return the shard of these files, and of no xorb unless `tail` has some."""
    return HEADER + struct.pack("<QQ", 2, 0) + b"".join(_file(file) for file in files) + END + tail


def _file(file: File) -> bytes:
    flags = file.flags | (file.hashes << 31) | ((file.sha256 is not None) << 30)
    written = b"\1" * 32 + struct.pack("<IIQ", flags, len(file.ranges), 0)
    for name, first, past, size in file.ranges:
        written += raw_hash(name) + struct.pack("<IIII", 0, size, first, past)
    written += (b"\2" * 48) * (len(file.ranges) if file.hashes else 0)
    if file.sha256 is not None:
        written += raw_hash(file.sha256) + b"\0" * 16
    return written
