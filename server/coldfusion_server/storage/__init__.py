"""
Where the bytes lie: immutable objects by their SHA-256, and uploads in parts on their way there.

What a client uploads lands under the upload's own key; only `adopt`, which reads it again while it
computes the digest, makes an object of it. So nothing that arrives later can change what was
verified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from coldfusion_shared.errors import DigestMismatch
from coldfusion_shared.weights.checkpoint import ByteSource


@dataclass(frozen=True)
class StoredObject:
    """An object's name and size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class ListedObject:
    """An object's name, size in bytes, and when it was stored, the last time if it was twice."""

    sha256: str
    size: int
    stored_at: datetime


@dataclass(frozen=True)
class StoredPart:
    """A part of an upload that has arrived, and what the store calls its content."""

    size: int
    etag: str


class PartWriter(Protocol):
    """One part on its way in. It counts only once it is committed."""

    def write(self, data: bytes) -> None:
        """Take the next bytes; raises `StorageFull`."""

    def commit(self, md5: str | None = None) -> str:
        """
        Keep the part, in place of an earlier one of its number, and return its ETag.

        Raises:
            DigestMismatch: its MD5 is not `md5`, in hexadecimal; nothing is kept.
        """

    def abort(self) -> None:
        """Forget what was written; harmless after `commit`."""


class ObjectWriter(Protocol):
    """An object on its way in. It exists only once it is committed."""

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes; raises `StorageFull`."""

    def finish(self) -> None:
        """Give back the memory that is held: nothing more will be written, `commit` comes later."""

    def commit(
        self, expect: str | None = None, progress: Callable[[int], None] = lambda size: None
    ) -> StoredObject:
        """
        Keep the bytes under their own digest, durably.

        Args:
            expect: the digest that they have to have; null: any.
            progress: is called now and then, where keeping them takes long.

        Raises:
            DigestMismatch: the digest is not `expect`; nothing is kept.
        """

    def abort(self) -> None:
        """Forget what was written; harmless after `commit`."""


class ObjectStore(Protocol):
    """
    What a backend must do. Digests are 64 hexadecimal digits; upload keys are plain names.

    A method that names an object which is not there raises `StorageUnavailable`; one that finds no
    room raises `StorageFull` and leaves nothing behind. All of it is safe to use from several
    threads and several processes.
    """

    @property
    def min_part_bytes(self) -> int:
        """How small the parts of an upload may be, the last one apart."""

    def put(self, chunks: Iterable[bytes | memoryview], expect: str | None = None) -> StoredObject:
        """
        Store the bytes of `chunks` under their own digest, durably.

        The same bytes again change nothing but the time at which the object was stored.

        Raises:
            DigestMismatch: the digest is not `expect`; nothing is kept.
        """

    def open_object(self) -> ObjectWriter:
        """Begin an object whose bytes come bit by bit."""

    def exists(self, digest: str) -> bool:
        """Return whether the object is there."""

    def size(self, digest: str) -> int:
        """Return the object's size in bytes."""

    def stored_at(self, digest: str) -> datetime | None:
        """Return when the object was stored, the last time if it was twice; null: it is gone."""

    def source(self, digest: str) -> ByteSource:
        """Open the object for reading by range."""

    def local_path(self, digest: str) -> Path | None:
        """Return the object's file, where the store has files that can be served directly."""

    def object_url(self, digest: str, lifetime: timedelta, name: str) -> str | None:
        """
        Return a URL under which anybody can fetch the object for a while.

        Args:
            digest: which object.
            lifetime: how long the URL is good.
            name: what a browser calls the file, plain ASCII.

        Returns:
            null where the store has no URLs of its own and `local_path` serves.
        """

    def objects(self) -> Iterator[ListedObject]:
        """Yield every object, page by page, in no order."""

    def delete(self, digest: str) -> None:
        """Remove the object; harmless if it is gone."""

    def part_urls(
        self, upload: str, sizes: Mapping[int, int], lifetime: timedelta
    ) -> dict[int, str] | None:
        """
        Return where parts of the upload are to be PUT, without any further right.

        Args:
            upload: its key.
            sizes: the parts by number, counted from 1, with their sizes in bytes; no other length
                is taken.
            lifetime: how long the URLs are good.

        Returns:
            URLs by number; null where the store has none and `open_part` takes the bytes.
        """

    def open_part(self, upload: str, number: int) -> PartWriter:
        """Begin part `number`, counted from 1, of the upload, in a store without URLs."""

    def parts(self, upload: str) -> dict[int, StoredPart]:
        """Return the parts that have arrived, by number; none once `adopt` has begun."""

    def adopt(
        self, upload: str, expect: str, progress: Callable[[int], None] = lambda size: None
    ) -> StoredObject:
        """
        Make an object of the upload's parts, after reading what was stored of them.

        It can be repeated after a death at any point; the upload stays until it is discarded.

        Args:
            upload: its key.
            expect: the digest that was declared.
            progress: is called with the bytes verified since the last call, and with 0 where
                something else takes long.

        Raises:
            DigestMismatch: the bytes are others; there is no new object.
            UploadIncomplete: there is no such upload.
        """

    def pending_uploads(self) -> list[str]:
        """Return the keys of all uploads of which bytes are kept."""

    def discard_upload(self, upload: str) -> None:
        """Remove the upload and its parts; harmless if they are gone."""

    def claim(self, owner: str) -> str:
        """Write down `owner` as the one that the store belongs to, if none is; return who is."""

    def clean(self) -> None:
        """Remove what processes that died have left half written."""

    def free_bytes(self) -> int | None:
        """Return the room that is left, where that can be told."""

    def check(self) -> None:
        """Do a little of everything that is needed of it, and undo it; raises what goes wrong."""

    def close(self) -> None:
        """Give back connections and threads."""


def check_digest(sha256: str, expect: str | None) -> None:
    """Raise `DigestMismatch` unless what was stored is what was declared, if anything was."""
    if expect is not None and sha256 != expect:
        raise DigestMismatch(f"The bytes have the SHA-256 {sha256}, declared was {expect}.")
