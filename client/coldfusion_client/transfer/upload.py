"""Files in parts to signed URLs: several parts at once, resumed, each with its checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from threading import Lock
from typing import BinaryIO, NamedTuple

from coldfusion_client.api import Api
from coldfusion_client.reporting import Bar
from coldfusion_client.transfer.crew import Crew, Flag
from coldfusion_shared.errors import DigestMismatch, UploadIncomplete, UploadRefused
from coldfusion_shared.schemas.contributions import Part, UploadPlan

WORKERS = 4
# Of one write to the socket: what the system does not take at once is copied by the layers below.
_BLOCK_BYTES = 2**20
_HASHED_BYTES = 2**20
# A URL that was fresh and is refused again did not expire: something else is wrong.
_RENEWALS = 3


def upload(
    api: Api, plan: UploadPlan, sources: Mapping[str, Path], bar: Bar, workers: int = WORKERS
) -> None:
    """
    Send the parts of the plan's files that have not arrived yet.

    Args:
        api: the server, for the parts and for fresh URLs.
        plan: which parts there are and where they go.
        sources: the files by their paths in the plan; those of which nothing is to be sent may be
            left out.
        bar: moves by the files' sizes in all.
        workers: how many parts travel at once; each holds one block in memory.

    Raises:
        ServerUnreachable, StorageFull, ...: what a part failed with after many tries.
        UploadIncomplete: the plan has become another one; ask for it again.
        UploadRefused: also fresh URLs are refused.
        DigestMismatch: a file became shorter, or what arrives is never what was sent.
    """
    with Crew(workers) as crew:
        sender = _Sender(api, plan, sources, bar, crew.flag())
        jobs = []
        for key, part in _parts(plan).items():
            if part.uploaded:
                bar.advance(part.size)
            else:
                jobs.append(crew.submit(sender.send, key))
        crew.finish(jobs)


class _Key(NamedTuple):
    """Which part: the file's path, the part's number, and its first byte in the file."""

    path: str
    number: int
    start: int


class _Sender:
    """Sends parts; shared by the workers."""

    def __init__(
        self, api: Api, plan: UploadPlan, sources: Mapping[str, Path], bar: Bar, over: Flag
    ) -> None:
        self.api, self.sources, self.bar, self.over = api, sources, bar, over
        self.identity = plan.contribution
        self.patience = over.patience(api.connection.patience)
        self._lock = Lock()
        self._parts = _parts(plan)

    def send(self, key: _Key) -> None:
        """Send a part until it has arrived."""
        for renewals_left in reversed(range(_RENEWALS)):
            part = self._parts[key]
            try:
                self.patience.persist(partial(self._put, key, part))
                return
            except UploadRefused:
                if not renewals_left:
                    raise
                self._renew(key, part)

    def _put(self, key: _Key, part: Part) -> None:
        self.over.check()
        if part.uploaded or part.url is None:
            self.bar.advance(part.size)
            return
        body = _Body(self, key, part)
        try:
            self.api.put_part(part.url, body, part.size, body.md5())
        except BaseException:
            body.take_back()
            raise

    def _renew(self, key: _Key, refused: Part) -> None:
        with self._lock:
            # Of several workers whose URLs have expired, the first one asks.
            if self._parts[key] is not refused:
                return
            fresh = _parts(self.api.upload_plan(self.identity))
            if fresh.keys() != self._parts.keys():
                raise UploadIncomplete("The Repository wants the upload in other parts by now.")
            self._parts = fresh


class _Body:
    """One part's bytes, read anew whenever it is iterated."""

    def __init__(self, sender: _Sender, key: _Key, part: Part) -> None:
        self.sender, self.key, self.part = sender, key, part
        self.sent = 0

    def md5(self) -> bytes:
        """Read the part once before it is sent; the second time it comes from the page cache."""
        digest = hashlib.md5(usedforsecurity=False)
        for block in self._read(_HASHED_BYTES):
            digest.update(block)
        return digest.digest()

    def __iter__(self) -> Iterator[bytes]:
        self.take_back()
        for block in self._read(_BLOCK_BYTES):
            self.sent += len(block)
            self.sender.bar.advance(len(block))
            yield block

    def take_back(self) -> None:
        """Nothing of it counts as sent."""
        self.sender.bar.advance(-self.sent)
        self.sent = 0

    def _read(self, block_bytes: int) -> Iterator[bytes]:
        with self.sender.sources[self.key.path].open("rb", buffering=0) as file:
            file.seek(self.key.start)
            yield from self._blocks(file, block_bytes)

    def _blocks(self, file: BinaryIO, block_bytes: int) -> Iterator[bytes]:
        left = self.part.size
        while left:
            self.sender.over.check()
            block = file.read(min(block_bytes, left))
            if not block:
                source = self.sender.sources[self.key.path]
                raise DigestMismatch(f"{source} became shorter during its upload.")
            left -= len(block)
            yield block


def _parts(plan: UploadPlan) -> dict[_Key, Part]:
    return {
        _Key(file.path, part.number, (part.number - 1) * file.part_size): part
        for file in plan.files
        for part in file.parts
    }
