"""Digests of what is stored, and of what a fuse makes when nobody keeps it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing

from coldfusion_server.services.context import Context
from coldfusion_server.storage import ObjectWriter, StoredObject, check_digest
from coldfusion_shared.weights.digests import BLOCK_BYTES


class DigestSink:
    """Takes the files of a fuse, keeps their sizes and digests, and forgets the bytes."""

    def open_object(self) -> ObjectWriter:
        """Begin one file."""
        return _Digest()


class _Digest:
    """An `ObjectWriter` whose object is never stored."""

    def __init__(self) -> None:
        self._digest, self._size = hashlib.sha256(), 0

    def write(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        self._size += len(data)

    def finish(self) -> None:
        """Nothing is held."""

    def commit(
        self, expect: str | None = None, progress: Callable[[int], None] = lambda size: None
    ) -> StoredObject:
        sha256 = self._digest.hexdigest()
        check_digest(sha256, expect)
        return StoredObject(sha256, self._size)

    def abort(self) -> None:
        """Nothing is held."""


def object_digest(ctx: Context, name: str, progress: Callable[[int], None]) -> tuple[int, str]:
    """
    Read a stored object, block by block.

    Args:
        ctx: the service's surroundings.
        name: the digest that it is stored under.
        progress: told the bytes read so far.

    Returns:
        its size in bytes and the SHA-256 of what is there.
    """
    digest, done = hashlib.sha256(), 0
    buffer = memoryview(bytearray(BLOCK_BYTES))
    with closing(ctx.store.source(name)) as source:
        while done < source.size:
            block = buffer[: min(BLOCK_BYTES, source.size - done)]
            source.read_into(done, block)
            digest.update(block)
            done += len(block)
            progress(done)
    return done, digest.hexdigest()
