"""
The file of a backup: gzip of JSON lines, the same for SQLite and PostgreSQL.

The first line is an object that says what follows: ``format``, ``version`` of the format,
``revision`` of the tables, ``made_at``, ``software``, the ``tables`` with the kinds of their
columns, and how many ``rows`` each has. Then the rows, table by table: ``["tokens", [...]]`` holds
some rows of a table, each a list in the order of its columns. Times are ISO 8601 in UTC, JSON
columns the text that the database keeps. The last line holds count and SHA-256 of each table's rows
and the SHA-256 of all lines before it. A file without it is not whole.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from gzip import BadGzipFile, GzipFile
from pathlib import Path
from typing import IO, Any

from coldfusion_server.db.rows import Digests, Row, Shape, line
from coldfusion_shared.errors import BadBackup, Conflict, InvalidRequest, StorageFull

FORMAT = "coldfusion database"
VERSION = 1
# A line holds some hundred rows; a manifest of thousands of files has a megabyte.
MAX_LINE_BYTES = 2**30


@dataclass(frozen=True)
class Header:
    """
    What a backup says of itself.

    Attributes:
        revision: of the tables.
        made_at: ISO 8601.
        software: what has made it.
        tables: columns and their kinds.
        rows: how many each table has.
    """

    revision: str
    made_at: str
    software: str
    tables: Shape
    rows: dict[str, int]


class Writer:
    """Writes a backup's lines."""

    def __init__(self, file: GzipFile, header: Header) -> None:
        """Begin with the header."""
        self.file = file
        self.whole = hashlib.sha256()
        self.digests = Digests()
        self._write(line({"format": FORMAT, "version": VERSION, **asdict(header)}))

    def add(self, table: str, rows: list[Row]) -> None:
        """Write some rows of a table."""
        self.digests.add(table, rows)
        self._write(line([table, rows]))

    def finish(self) -> None:
        """Write the last line, which makes the file whole."""
        self.file.write(line({"tables": self.digests.told(), "sha256": self.whole.hexdigest()}))

    def _write(self, data: bytes) -> None:
        self.whole.update(data)
        self.file.write(data)


class Reader:
    """Reads a backup's lines; what comes is to be trusted only once `batches` has ended."""

    def __init__(self, file: GzipFile, name: str) -> None:
        """Read the header; raises `BadBackup`."""
        self.file = file
        self.name = name
        self.whole = hashlib.sha256()
        self.digests = Digests()
        with self._readable():
            self.header = self._header()

    def batches(self) -> Iterator[tuple[str, list[Row]]]:
        """
        Yield table and rows.

        Raises:
            BadBackup: the file is not the one that was written, or not whole.
        """
        while True:
            with self._readable():
                data = self._line()
                value = json.loads(data)
                if isinstance(value, dict):
                    self._check_end(value)
                    return
                table, rows = value
                self.digests.add(table, rows)
                self.whole.update(data)
            yield table, rows

    def _header(self) -> Header:
        data = self._line()
        self.whole.update(data)
        said = json.loads(data)
        if said.pop("format") != FORMAT:
            raise ValueError
        version = said.pop("version")
        if version != VERSION:
            raise BadBackup(
                f"{self.name} is a backup of format {version}; this version reads {VERSION}.",
                hint="It was made by a newer coldfusion; install that version.",
            )
        return Header(**said)

    def _line(self) -> bytes:
        data = self.file.readline(MAX_LINE_BYTES)
        if not data.endswith(b"\n"):
            raise EOFError
        return data

    def _check_end(self, end: dict[str, Any]) -> None:
        told = self.digests.told()
        counts = {name: count for name, count in self.header.rows.items() if count}
        if (
            end != {"tables": told, "sha256": self.whole.hexdigest()}
            or counts != self.digests.rows
            or self.file.read(1)
        ):
            raise ValueError

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except EOFError:
            raise BadBackup(
                f"{self.name} ends too early; it is not a whole backup.",
                hint="Copy it again from where it was made, or take an earlier one.",
            ) from None
        except (BadGzipFile, zlib.error, ValueError, TypeError, KeyError, AttributeError,
                RecursionError):  # fmt: skip
            raise BadBackup(
                f"{self.name} is not a backup of coldfusion, or it was altered.",
                hint="Copy it again from where it was made, or take an earlier one.",
            ) from None


@contextmanager
def new_file(path: Path) -> Iterator[GzipFile]:
    """
    Yield a compressed file that becomes `path` at the end, or vanishes if anything goes wrong.

    Nobody but its owner may read it: the digests of all tokens are in it.

    Raises:
        Conflict: another backup is being written there.
        StorageFull: no room on the disk.
        InvalidRequest: it cannot be written there.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not path.is_file():
            # The new file would take the place of a device or a pipe.
            raise InvalidRequest(
                f"{path} is no file that a backup could become.",
                hint="Name a file; what comes of it can be piped on afterwards.",
            )
        with _locked(partial) as raw:
            try:
                # Neither a name nor a time in it: equal contents, equal bytes.
                with GzipFile("", "wb", 6, raw, mtime=0) as packed:
                    yield packed
                raw.flush()
                os.fsync(raw.fileno())
                partial.replace(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        _sync_folder(path.absolute().parent)
    except OSError as error:
        raise _not_written(path, error) from None


@contextmanager
def opened(path: Path) -> Iterator[Reader]:
    """Open a backup; raises `BadBackup`, also where there is none."""
    try:
        with path.open("rb") as raw, GzipFile(fileobj=raw) as file:
            yield Reader(file, path.name)
    except BadGzipFile:
        raise BadBackup(f"{path.name} is not a backup of coldfusion.") from None
    except OSError as error:
        raise BadBackup(f"{str(path)!r} cannot be read: {error.strerror or error}.") from None


@contextmanager
def _locked(partial: Path) -> Iterator[IO[bytes]]:
    """Open the unfinished file for one process alone; what a killed one has left is emptied."""
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as raw:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between opening and locking another process may have finished, and renamed it.
            same = partial.exists() and os.path.samestat(os.fstat(descriptor), partial.stat())
        except BlockingIOError:
            same = False
        if not same:
            raise Conflict(f"Another backup is being written to {partial.parent} just now.")
        os.ftruncate(descriptor, 0)
        os.fchmod(descriptor, 0o600)
        yield raw


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_written(path: Path, error: OSError) -> StorageFull | InvalidRequest:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(
            f"The disk is full; {path.name} could not be written, and nothing is left of it.",
            hint=f"Free some space under {path.absolute().parent}, then run the command again.",
        )
    return InvalidRequest(f"{str(path)!r} cannot be written: {error.strerror or error}.")
