"""
Where the bytes lie: immutable objects by their SHA-256, and uploads in parts on their way there.

What a client uploads lands under the upload's own key; only `put`, which reads it again while it
computes the digest, makes an object of it. So nothing that arrives later can change what was
verified.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from coldfusion_shared.weights.checkpoint import ByteSource


@dataclass(frozen=True)
class StoredObject:
    """An object's name and size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class StoredPart:
    """A part of an upload that has arrived; `etag` is its MD5 in hexadecimal."""

    size: int
    etag: str


class PartWriter(Protocol):
    """One part on its way in. It counts only once it is committed."""

    def write(self, data: bytes) -> None:
        """Take the next bytes; raises `StorageFull`."""

    def commit(self) -> str:
        """Keep the part, in place of an earlier one of its number, and return its ETag."""

    def abort(self) -> None:
        """Forget what was written; harmless after `commit`."""


class ObjectWriter(Protocol):
    """An object on its way in. It exists only once it is committed."""

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes; raises `StorageFull`."""

    def commit(self, expect: str | None = None) -> StoredObject:
        """
        Keep the bytes under their own digest, durably; the same bytes again are no-op.

        Raises:
            DigestMismatch: the digest is not `expect`; nothing is kept.
        """

    def abort(self) -> None:
        """Forget what was written; harmless after `commit`."""


class ObjectStore(Protocol):
    """
    What a backend must do. Digests are 64 hexadecimal digits; upload keys are plain names.

    A method that names an object which is not there raises `StorageUnavailable`; one that finds no
    room raises `StorageFull` and leaves nothing behind.
    """

    def put(self, chunks: Iterable[bytes | memoryview], expect: str | None = None) -> StoredObject:
        """
        Store the bytes of `chunks` under their own digest, durably; the same bytes again are no-op.

        Raises:
            DigestMismatch: the digest is not `expect`; nothing is kept.
        """

    def open_object(self) -> ObjectWriter:
        """Begin an object whose bytes come bit by bit."""

    def exists(self, digest: str) -> bool:
        """Return whether the object is there."""

    def size(self, digest: str) -> int:
        """Return the object's size in bytes."""

    def source(self, digest: str) -> ByteSource:
        """Open the object for reading by range."""

    def local_path(self, digest: str) -> Path | None:
        """Return the object's file, where the store has files that can be served directly."""

    def delete(self, digest: str) -> None:
        """Remove the object; harmless if it is gone."""

    def open_part(self, upload: str, number: int) -> PartWriter:
        """Begin part `number`, counted from 1, of the upload."""

    def parts(self, upload: str) -> dict[int, StoredPart]:
        """Return the parts that have arrived, by number."""

    def read_upload(self, upload: str) -> Iterator[bytes]:
        """Yield the bytes of all parts, in order."""

    def pending_uploads(self) -> list[str]:
        """Return the keys of all uploads of which parts are kept."""

    def discard_upload(self, upload: str) -> None:
        """Remove the upload and its parts; harmless if they are gone."""

    def clean(self) -> None:
        """Remove what processes that died have left half written."""

    def free_bytes(self) -> int | None:
        """Return the room that is left, where that can be told."""

    def check(self) -> None:
        """Write, read and remove a small object; raises what goes wrong."""
