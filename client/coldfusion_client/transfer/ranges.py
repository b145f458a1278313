"""Which bytes of a file are there and which are to be fetched: arithmetic, nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass
class Piece:
    """
    The bytes from `start` up to `end`, without `end` itself.

    Attributes:
        start: first byte.
        end: the byte after the last one.
        at: the first byte that is not there yet; `end` where all are.
    """

    start: int
    end: int
    at: int


def pieces(size: int, finished: Iterable[tuple[int, int]], step: int) -> list[Piece]:
    """
    Cut a file into pieces that follow each other from its first byte to its last.

    Args:
        size: bytes of the file.
        finished: ranges of bytes that are there, in any order; they may overlap.
        step: bytes of the longest piece that is to be fetched.
    """
    cut: list[Piece] = []
    reached = 0
    for start, end in [*merged(size, finished), (size, size)]:
        for begin in range(reached, start, step):
            cut.append(Piece(begin, min(begin + step, start), begin))
        if end > start:
            cut.append(Piece(start, end, end))
        reached = end
    return cut


def merged(size: int, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return what `ranges` cover of a file of `size` bytes: in order, apart, none of them empty."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        start, end = max(0, start), min(end, size)
        if start >= end:
            continue
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found
