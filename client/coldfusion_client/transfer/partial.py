"""
A file that is being downloaded, and a journal of which of its ranges are there.

The file grows in any order and has holes. A range is written into the journal after its bytes were
written, so what the journal says has reached the system, and survives a process that is killed. It
may not survive a power cut: the digest of the whole decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from coldfusion_client.transfer.ranges import merged

_LINE = re.compile(r"([0-9]{1,18}) ([0-9]{1,18})\n")


class PartialFile:
    """One unfinished file of `size` bytes. Several threads may write to it at once."""

    def __init__(self, path: Path, size: int) -> None:
        """Use the file at `path`, and the journal beside it."""
        self.path, self.size = path, size
        self._journal = journal_of(path)
        self._lock = Lock()

    def take_up(self) -> list[tuple[int, int]]:
        """Return the ranges that are there, in order, and be ready for more."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        there = held(self.path, self.size)
        # Anew: a line that a kill has torn must not run into the next one. And before the file:
        # without a journal it would be taken for a file without holes.
        new = self._journal.with_suffix(".new")
        new.write_bytes(b"".join(_line(start, end) for start, end in there))
        new.replace(self._journal)
        with self.path.open("ab") as file:
            file.truncate(min(file.tell(), self.size))
        return there

    def note(self, start: int, end: int) -> None:
        """Keep in mind that the bytes from `start` up to `end` were written."""
        if start < end:
            with self._lock, self._journal.open("ab", buffering=0) as journal:
                journal.write(_line(start, end))

    @contextmanager
    def writing_at(self, start: int) -> Iterator[BinaryIO]:
        """Open the file for unbuffered writing from byte `start` on."""
        with self.path.open("r+b", buffering=0) as file:
            file.seek(start)
            yield file

    def discard(self) -> None:
        """Remove what is left of file and journal."""
        self.path.unlink(missing_ok=True)
        # Second: a journal without its file says nothing, a file without its journal too much.
        self._journal.unlink(missing_ok=True)


def journal_of(path: Path) -> Path:
    """Return where the journal of the partial file at `path` lies."""
    return path.with_name(f"{path.name}.journal")


def held(path: Path, size: int) -> list[tuple[int, int]]:
    """Return the ranges that are there of the file of `size` bytes that grows at `path`."""
    try:
        length = path.stat().st_size
    except FileNotFoundError:
        return []
    try:
        text = journal_of(path).read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        # An older client writes from the first byte on, and no journal.
        return merged(size, [(0, length)])
    ranges = [_LINE.fullmatch(line) for line in text.splitlines(keepends=True)]
    return merged(min(size, length), [(int(found[1]), int(found[2])) for found in ranges if found])


def _line(start: int, end: int) -> bytes:
    return f"{start} {end}\n".encode()


def write_all(file: BinaryIO, block: bytes) -> None:
    """Write all of `block`; an unbuffered file may take less at a time."""
    view = memoryview(block)
    while view:
        view = view[file.write(view) :]
