"""A base's file into the cache: resumed where it stopped, hashed while it streams."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import httpx

from coldfusion_client.api import Api
from coldfusion_client.cache import Cache
from coldfusion_client.connection import unreachable
from coldfusion_client.disk import writing
from coldfusion_client.patience import Transient
from coldfusion_client.reporting import Bar
from coldfusion_shared.errors import DigestMismatch, ServerUnreachable
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.files import FileEntry

_BLOCK_BYTES = 2**20


def fetch(api: Api, cache: Cache, base: Manifest, entry: FileEntry, bar: Bar) -> Path:
    """
    Return the path in `cache` of a base's file; download it unless it is there.

    Args:
        api: where to get it.
        cache: where to keep it.
        base: the base.
        entry: which of its files.
        bar: moves by the file's size in all.

    Raises:
        DigestMismatch: the server's bytes are not the ones of the manifest, also the second time.
        StorageFull: no room on the disk.
        ServerUnreachable: the connection was lost too often.
    """
    # Two processes that need the same file: the second one finds it when its turn comes.
    with cache.lock(entry.sha256):
        found = cache.find(entry)
        if found is not None:
            bar.advance(entry.size)
            return found
        try:
            partial = _Download(api, base, entry, cache.partial(entry.sha256), bar).run()
        except DigestMismatch:
            # An earlier run may have left a damaged half; a clean start decides.
            partial = _Download(api, base, entry, cache.partial(entry.sha256), bar).run()
        return cache.adopt(entry.sha256, partial)


class _Download:
    """One file on its way. `have` bytes are on disk, and `hash` has seen them."""

    def __init__(self, api: Api, base: Manifest, entry: FileEntry, path: Path, bar: Bar) -> None:
        self.api, self.base, self.entry, self.path, self.bar = api, base, entry, path, bar
        self.hash = hashlib.sha256()
        self.have = 0

    def run(self) -> Path:
        with writing(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._take_up()
            self.api.connection.patience.persist(self._receive, lambda: self.have)
        if self.have == self.entry.size and self.hash.hexdigest() == self.entry.sha256:
            return self.path
        self.path.unlink()
        self.bar.advance(-self.have)
        raise DigestMismatch(
            f"What {self.api.server} sends as {self.entry.path} of {self.base.model} "
            f"{self.base.version} is not what the base's manifest says.",
            hint="Nothing was kept of it. Try again later, and tell the server's operator.",
        )

    def _take_up(self) -> None:
        self.path.touch()
        with self.path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                self._count(block)

    def _receive(self) -> None:
        if self.have >= self.entry.size:
            return
        route = (self.base.model, self.base.version, self.entry.path)
        with self.api.open_file(*route, self.have) as response:
            if self.have and _starts_at(response) != self.have:
                self._restart()
            with self.path.open("ab") as file:
                self._append(response, file.fileno())
        if self.have < self.entry.size:
            raise _cut(response)

    def _append(self, response: httpx.Response, file: int) -> None:
        try:
            for block in response.iter_bytes():
                _write(file, block)
                self._count(block)
                if self.have > self.entry.size:
                    return  # an endless body must not fill the disk
        except httpx.RequestError as error:
            raise unreachable(response.url, error) from error
        finally:
            os.fsync(file)

    def _count(self, block: bytes) -> None:
        self.hash.update(block)
        self.have += len(block)
        self.bar.advance(len(block))

    def _restart(self) -> None:
        """The server does not know ranges and sends everything again."""
        os.truncate(self.path, 0)
        self.bar.advance(-self.have)
        self.hash, self.have = hashlib.sha256(), 0


def _write(file: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(file, view) :]


def _starts_at(response: httpx.Response) -> int:
    if response.status_code != httpx.codes.PARTIAL_CONTENT:
        return 0
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _cut(response: httpx.Response) -> Transient:
    host = response.url.host
    return Transient(
        ServerUnreachable(
            f"{host} ended a download too early.",
            hint="Give the same command again; it goes on where it stopped.",
        )
    )
