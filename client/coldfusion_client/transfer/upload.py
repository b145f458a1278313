"""A file in parts to signed URLs: several at once, resumed, each part's checksum compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event, Lock

from coldfusion_client.api import Api
from coldfusion_client.patience import Transient
from coldfusion_client.reporting import Bar
from coldfusion_shared.errors import DigestMismatch, UploadRefused
from coldfusion_shared.schemas.contributions import FileUpload, Part, UploadPlan

WORKERS = 4
_BLOCK_BYTES = 2**18
# A URL that was fresh and is refused again did not expire: something else is wrong.
_RENEWALS = 3


def upload(api: Api, plan: UploadPlan, source: Path, bar: Bar, workers: int = WORKERS) -> None:
    """
    Send the parts of the plan's one file that have not arrived yet.

    Args:
        api: the server, for the parts and for fresh URLs.
        plan: which parts there are and where they go.
        source: the file.
        bar: moves by the file's size in all.
        workers: how many parts travel at once; each holds one block in memory.

    Raises:
        ServerUnreachable, StorageFull, ...: what a part failed with after many tries.
        UploadRefused: also fresh URLs are refused.
    """
    sender = _Sender(api, plan, source, bar)
    missing = [part for part in plan.files[0].parts if not part.uploaded]
    bar.advance(plan.files[0].size - sum(part.size for part in missing))
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(sender.send, part.number) for part in missing]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            # Reached by Ctrl-C, too: the parts under way end at their next block.
            sender.stopped.set()
            pool.shutdown(cancel_futures=True)
    failures = [future.exception() for future in futures if not future.cancelled()]
    for failure in failures:
        if failure is not None and not isinstance(failure, _Stopped):
            raise failure


class _Stopped(Exception):
    """Another part has failed, so this one ends."""


class _Sender:
    """Sends parts; shared by the workers."""

    def __init__(self, api: Api, plan: UploadPlan, source: Path, bar: Bar) -> None:
        self.api, self.source, self.bar = api, source, bar
        self.identity = plan.contribution
        self.part_size = plan.files[0].part_size
        self.stopped = Event()
        # A worker that waits for a better moment must wake up when the others stop.
        self.patience = replace(api.connection.patience, sleep=self.stopped.wait)
        self._lock = Lock()
        self._parts = _by_number(plan.files[0])

    def send(self, number: int) -> None:
        """Send a part until it has arrived; where it fails for good, the others stop, too."""
        try:
            self._send(number)
        except BaseException:
            self.stopped.set()
            raise

    def _send(self, number: int) -> None:
        for renewals_left in reversed(range(_RENEWALS)):
            part = self._parts[number]
            try:
                self.patience.persist(partial(self._put, part))
                return
            except UploadRefused:
                if not renewals_left:
                    raise
                self._renew(part)

    def _put(self, part: Part) -> None:
        if self.stopped.is_set():
            raise _Stopped
        if part.uploaded or part.url is None:
            self.bar.advance(part.size)
            return
        body = _Body(self, part)
        try:
            etag = self.api.put_part(part.url, body.blocks(), part.size)
        except BaseException:
            self.bar.advance(-body.sent)
            raise
        if etag != body.md5.hexdigest():
            self.bar.advance(-body.sent)
            raise Transient(
                DigestMismatch(
                    f"Part {part.number} did not arrive as it was sent.",
                    hint="Give the same command again; if it happens again, a proxy changes data.",
                )
            )

    def _renew(self, refused: Part) -> None:
        with self._lock:
            # Of several workers whose URLs have expired, the first one asks.
            if self._parts[refused.number] is refused:
                self._parts = _by_number(self.api.upload_plan(self.identity).files[0])


class _Body:
    """One part's bytes, read and hashed while they are sent."""

    def __init__(self, sender: _Sender, part: Part) -> None:
        self.sender, self.part = sender, part
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.sent = 0

    def blocks(self) -> Iterator[bytes]:
        with self.sender.source.open("rb") as file:
            file.seek((self.part.number - 1) * self.sender.part_size)
            while self.sent < self.part.size:
                if self.sender.stopped.is_set():
                    raise _Stopped
                block = file.read(min(_BLOCK_BYTES, self.part.size - self.sent))
                if not block:
                    raise DigestMismatch(f"{self.sender.source} became shorter during its upload.")
                self.md5.update(block)
                self.sent += len(block)
                self.sender.bar.advance(len(block))
                yield block


def _by_number(file: FileUpload) -> dict[int, Part]:
    return {part.number: part for part in file.parts}
