"""One file of a base over the network: fetched in ranges, hashed in the file's order meanwhile."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from threading import Lock

import httpx

from coldfusion_client.api import Api
from coldfusion_client.connection import unreachable
from coldfusion_client.patience import Transient
from coldfusion_client.reporting import Bar
from coldfusion_client.transfer.crew import Crew, Stopped, raise_first
from coldfusion_client.transfer.partial import PartialFile, write_all
from coldfusion_client.transfer.ranges import Piece, pieces
from coldfusion_shared.errors import DigestMismatch, ServerUnreachable
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.files import FileEntry

# Of one request: a large file has long ones, because asking for each costs the server something.
RANGE_BYTES = 2**24
LONGEST_RANGE_BYTES = 2**26
_RANGES = 16
# What a kill may lose of each request.
NOTED_BYTES = 2**23
_BLOCK_BYTES = 2**20
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/(\*|[0-9]{1,18})")


# Opens bytes of a file, from the first number up to the second one or to its end.
Open = Callable[[FileEntry, int, int | None], AbstractContextManager[httpx.Response]]


@dataclass(frozen=True)
class Job:
    """What the files of one download have in common: where from, and who does the work."""

    api: Api
    base: Manifest
    open: Open
    bar: Bar
    requests: Crew
    files: Crew


def receive(job: Job, entry: FileEntry, file: PartialFile) -> None:
    """
    Fetch what `file` does not have yet; the calling thread hashes while `job.requests` fetch.

    Raises:
        DigestMismatch: its bytes are not the ones of `entry`; nothing is left of them.
        ServerUnreachable: the connection was lost too often. What has arrived is kept.
    """
    bar = _Counted(job.bar)
    try:
        digest = _digest(job, entry, file, bar)
        if digest != entry.sha256:
            raise _mismatch(job, entry)
    except DigestMismatch:
        file.discard()
        bar.back()
        raise


def _digest(job: Job, entry: FileEntry, file: PartialFile, bar: _Counted) -> str:
    try:
        return _Receiver(job, entry, file, bar).in_ranges()
    except _NoRanges:
        bar.back()
        file.discard()
        return _Receiver(job, entry, file, bar).in_one_stream()


def range_bytes(size: int) -> int:
    """Return how many bytes of a file of `size` bytes one request asks for."""
    return min(LONGEST_RANGE_BYTES, max(RANGE_BYTES, -(-size // _RANGES)))


class _NoRanges(Exception):
    """The server sends other bytes than it was asked for: it does not know ranges."""


class _Receiver:
    """One try to bring one file; `over` is set when it has ended."""

    def __init__(self, job: Job, entry: FileEntry, file: PartialFile, bar: _Counted) -> None:
        self.job, self.entry, self.file, self.bar = job, entry, file, bar
        self.over = job.files.flag()
        self.patience = self.over.patience(job.api.connection.patience)

    def in_ranges(self) -> str:
        """Fetch what is missing, in parallel, and return the SHA-256 of the whole file."""
        cut = pieces(self.entry.size, self.file.take_up(), range_bytes(self.entry.size))
        self.bar.advance(sum(piece.at - piece.start for piece in cut))
        missing = [piece for piece in cut if piece.at < piece.end]
        jobs = {piece.start: self.job.requests.submit(self._fetch, piece) for piece in missing}
        try:
            return self._follow(cut, jobs)
        except Stopped:
            # Some piece has failed, perhaps a later one than the one that was waited for.
            raise_first(jobs.values())
            raise
        finally:
            self.over.set()
            wait(jobs.values())

    def in_one_stream(self) -> str:
        """Fetch the file from its first byte on, each time anew, and return its SHA-256."""
        self.file.take_up()
        return self.patience.persist(self._stream)

    def _follow(self, cut: list[Piece], jobs: dict[int, Future[None]]) -> str:
        """Hash each piece as soon as it and all before it are there, from the page cache."""
        digest = hashlib.sha256()
        block = memoryview(bytearray(_BLOCK_BYTES))
        with self.file.path.open("rb", buffering=0) as file:
            for piece in cut:
                if piece.start in jobs:
                    jobs[piece.start].result()
                left = piece.end - piece.start
                while left:
                    self.over.check()
                    read = file.readinto(block[:left])
                    if not read:
                        raise _mismatch(self.job, self.entry)  # somebody has shortened it
                    digest.update(block[:read])
                    left -= read
        return digest.hexdigest()

    def _fetch(self, piece: Piece) -> None:
        try:
            self.patience.persist(partial(self._receive, piece), lambda: piece.at)
        except BaseException:
            self.over.set()
            raise
        finally:
            self.file.note(piece.start, piece.at)

    def _receive(self, piece: Piece) -> None:
        with self._open(piece.at, piece.end) as response:
            self._check_range(response, piece)
            with self.file.writing_at(piece.at) as out:
                noted = piece.at
                for block in self._blocks(response, piece.end - piece.at):
                    write_all(out, block)
                    piece.at += len(block)
                    if piece.at - noted >= NOTED_BYTES:
                        self.file.note(noted, piece.at)
                        noted = piece.at
        if piece.at < piece.end:
            raise _cut(response)

    def _check_range(self, response: httpx.Response, piece: Piece) -> None:
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            # Asked for all of it, a server may send it without a word on ranges.
            if (piece.at, piece.end) != (0, self.entry.size):
                raise _NoRanges
            return
        span = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if span is None or "Content-Encoding" in response.headers:
            raise _NoRanges
        if int(span[1]) != piece.at or int(span[2]) >= piece.end:
            raise _NoRanges
        if span[3] not in {"*", str(self.entry.size)}:
            raise _mismatch(self.job, self.entry)

    def _stream(self) -> str:
        self.bar.back()
        digest, have = hashlib.sha256(), 0
        with self._open(0, None) as response, self.file.writing_at(0) as out:
            try:
                for block in self._blocks(response, self.entry.size):
                    write_all(out, block)
                    digest.update(block)
                    have += len(block)
            finally:
                self.file.note(0, have)
        if have < self.entry.size:
            raise _cut(response)
        return digest.hexdigest()

    def _open(self, start: int, end: int | None) -> AbstractContextManager[httpx.Response]:
        self.over.check()
        return self.job.open(self.entry, start, end)

    def _blocks(self, response: httpx.Response, room: int) -> Iterator[bytes]:
        """Yield the body, of which no more than `room` bytes are taken."""
        untold = 0
        try:
            # As they come from the socket: to collect them into larger ones costs a third more.
            for block in response.iter_bytes():
                self.over.check()
                room -= len(block)
                if room < 0:
                    raise _mismatch(self.job, self.entry)
                yield block
                untold += len(block)
                if untold >= _BLOCK_BYTES:  # The bar's lock is not for every few kilobytes.
                    self.bar.advance(untold)
                    untold = 0
        except httpx.RequestError as error:
            raise unreachable(response.url, error) from error
        finally:
            self.bar.advance(untold)


class _Counted:
    """A bar that can take back what it has moved; used by several threads."""

    def __init__(self, bar: Bar) -> None:
        self._bar, self._moved, self._lock = bar, 0, Lock()

    def advance(self, amount: int) -> None:
        with self._lock:
            self._moved += amount
        self._bar.advance(amount)

    def back(self) -> None:
        self.advance(-self._moved)


def _mismatch(job: Job, entry: FileEntry) -> DigestMismatch:
    return DigestMismatch(
        f"What {job.api.server} sends as {entry.path} of {job.base.model} {job.base.version} is "
        "not what the base's manifest says.",
        hint="Nothing was kept of it. Try again later, and tell the server's operator.",
    )


def _cut(response: httpx.Response) -> Transient:
    return Transient(
        ServerUnreachable(
            f"{response.url.host} ended a download too early.",
            hint="Give the same command again; it goes on where it stopped.",
        )
    )
