"""
The `ObjectStore` in a bucket.

`keys.py` says where what lies: objects have the paths that a folder has, so that any tool moves
them from one to the other. Clients send and fetch bytes by signed URLs; no model passes through the
process that serves the API.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from coldfusion_server.storage import (
    ListedObject,
    ObjectWriter,
    PartWriter,
    StoredObject,
    StoredPart,
    check_digest,
)
from coldfusion_server.storage.s3.bucket import MIB, Bucket
from coldfusion_server.storage.s3.connection import S3Options
from coldfusion_server.storage.s3.keys import IDS, OBJECTS, OWNER, TEMPORARY, UPLOADS, object_key
from coldfusion_server.storage.s3.writer import S3Object
from coldfusion_shared.errors import StorageUnavailable, UploadIncomplete
from coldfusion_shared.weights.checkpoint import ByteSource
from coldfusion_shared.weights.windows import ReadAhead

# What S3 asks of every part of an upload but its last one.
MIN_PART_BYTES = 5 * MIB
# Longer than any single object takes to write; what is older belongs to a process that died.
ABANDONED = timedelta(hours=24)
# Ids of uploads that a process remembers, so that it need not ask for each part's URL.
REMEMBERED = 10_000


@dataclass(frozen=True)
class _Begun:
    """
    A multipart upload as it stands.

    Attributes:
        generation: how often it was begun; 0: never.
        upload_id: the service's id of it; null: it is complete, or was given up.
        parts: those that have arrived, as S3 lists them.
    """

    generation: int
    upload_id: str | None
    parts: list[dict[str, Any]]


class S3Store:
    """An `ObjectStore` in a bucket, which all processes of the server share."""

    min_part_bytes = MIN_PART_BYTES

    def __init__(self, options: S3Options) -> None:
        """Open no connection yet; `check` does."""
        self.bucket = Bucket(options)
        self.ahead = ReadAhead()
        self._ids: dict[str, _Begun] = {}
        self._lock = Lock()

    def put(self, chunks: Iterable[bytes | memoryview], expect: str | None = None) -> StoredObject:
        """Store the bytes of `chunks` under their own digest."""
        writer = self.open_object()
        try:
            for chunk in chunks:
                writer.write(chunk)
            return writer.commit(expect)
        finally:
            writer.abort()

    def open_object(self) -> ObjectWriter:
        """Begin an object that is sent in parts while it is made."""
        return S3Object(self.bucket)

    def exists(self, digest: str) -> bool:
        """Return whether the object is there."""
        return self.bucket.size(object_key(digest)) is not None

    def size(self, digest: str) -> int:
        """Return the object's size in bytes."""
        size = self.bucket.size(object_key(digest))
        if size is None:
            raise StorageUnavailable(f"The object {digest} is not in the bucket.")
        return size

    def stored_at(self, digest: str) -> datetime | None:
        """Return when the object was written."""
        return self.bucket.written_at(object_key(digest))

    def source(self, digest: str) -> ByteSource:
        """Open the object for reading ahead."""
        return self.ahead.open(partial(self.bucket.read, object_key(digest)), self.size(digest))

    def local_path(self, digest: str) -> Path | None:
        """No file: clients are sent to the bucket."""
        return None

    def object_url(self, digest: str, lifetime: timedelta, name: str) -> str | None:
        """Sign a URL to fetch the object from the bucket itself."""
        shown = f'attachment; filename="{name}"'
        return self.bucket.url(
            "get_object", object_key(digest), lifetime, ResponseContentDisposition=shown
        )

    def objects(self) -> Iterator[ListedObject]:
        """Yield what there is, page by page."""
        for entry in self.bucket.entries(OBJECTS):
            yield ListedObject(entry.key.rsplit("/", 1)[-1], entry.size, entry.written_at)

    def delete(self, digest: str) -> None:
        """Remove the object."""
        self.bucket.delete(object_key(digest))

    def part_urls(
        self, upload: str, sizes: Mapping[int, int], lifetime: timedelta
    ) -> dict[int, str] | None:
        """Sign a URL for each part; the multipart upload begins with the first one."""
        if not sizes:
            return {}
        begun = self._remembered(upload) or self._begun(upload)
        upload_id = begun.upload_id or self._begin(upload, begun.generation + 1)
        return {
            number: self.bucket.url(
                "upload_part",
                UPLOADS + upload,
                lifetime,
                UploadId=upload_id,
                PartNumber=number,
                # Signed, so that the bucket takes no other length.
                ContentLength=size,
            )
            for number, size in sizes.items()
        }

    def open_part(self, upload: str, number: int) -> PartWriter:
        """Refuse: parts go to the bucket itself."""
        raise StorageUnavailable(
            "Parts are sent to the bucket, not to this server.", hint="Ask for the upload plan."
        )

    def parts(self, upload: str) -> dict[int, StoredPart]:
        """Ask the bucket what has arrived; an upload that is complete or gone has no parts."""
        return {
            int(part["PartNumber"]): StoredPart(int(part["Size"]), part["ETag"].strip('"'))
            for part in self._begun(upload).parts
        }

    def adopt(
        self, upload: str, expect: str, progress: Callable[[int], None] = lambda size: None
    ) -> StoredObject:
        """Complete the upload, read it once to verify it, and copy it inside of the bucket."""
        key = UPLOADS + upload
        begun = self._begun(upload)
        if begun.upload_id is not None and begun.parts:
            self.bucket.patiently(progress, self.bucket.complete, key, begun.upload_id, begun.parts)
        size = self.bucket.size(key)
        if size is None:
            raise UploadIncomplete(f"There is nothing of the upload {upload} in the bucket.")
        digest = hashlib.sha256()
        for block in self.bucket.blocks(key, size):
            digest.update(block)
            progress(len(block))
        stored = StoredObject(digest.hexdigest(), size)
        check_digest(stored.sha256, expect)
        self.bucket.copy(key, object_key(stored.sha256), size, progress)
        return stored

    def pending_uploads(self) -> list[str]:
        """Return the uploads that are unfinished, or finished and not yet removed."""
        # MinIO lists multipart uploads of one exact key only; there their ids tell.
        unfinished = {item.key.removeprefix(UPLOADS) for item in self.bucket.multiparts(UPLOADS)}
        finished = {entry.key.removeprefix(UPLOADS) for entry in self.bucket.entries(UPLOADS)}
        named = {entry.key.removeprefix(IDS).split("/")[0] for entry in self.bucket.entries(IDS)}
        return sorted(unfinished | finished | named)

    def discard_upload(self, upload: str) -> None:
        """Abort the multipart upload, and remove what it had become."""
        key = UPLOADS + upload
        # Also those that lost when several began at once and died before they gave theirs up.
        found = {item.upload_id for item in self.bucket.multiparts(key) if item.key == key}
        ids = [entry.key for entry in self.bucket.entries(f"{IDS}{upload}/", quick=True)]
        for upload_id in found | {self.bucket.text(name) for name in ids}:
            if upload_id is not None:
                self.bucket.abort(key, upload_id)
        for name in [key, *ids]:
            self.bucket.delete(name)
        with self._lock:
            self._ids.pop(upload, None)

    def claim(self, owner: str) -> str:
        """Write the owner's name unless there is one; return the one that is there."""
        return self._first(OWNER, owner)

    def clean(self) -> None:
        """Remove temporary objects that nobody can be writing any more."""
        before = datetime.now(UTC) - ABANDONED
        # Below the objects: large ones are copied there in parts.
        for prefix in (TEMPORARY, OBJECTS):
            for item in list(self.bucket.multiparts(prefix)):
                if item.begun_at < before:
                    self.bucket.abort(item.key, item.upload_id)
        for entry in list(self.bucket.entries(TEMPORARY)):
            if entry.written_at < before:
                self.bucket.delete(entry.key)

    def free_bytes(self) -> int | None:
        """Return null: a bucket does not tell."""
        return None

    def check(self) -> None:
        """Do once, with a few bytes, what is done with models."""
        key, data = f"{TEMPORARY}{secrets.token_hex(16)}", secrets.token_bytes(64)
        copy = f"{key}.copy"
        upload_id = self.bucket.begin(key)
        part = self.bucket.send(key, upload_id, 1, data)
        self.bucket.parts(key, upload_id)
        list(self.bucket.multiparts(key))
        self.bucket.complete(key, upload_id, [part])
        self.bucket.copy(key, copy, len(data), lambda _: None)
        listed = [entry.size for entry in self.bucket.entries(copy)]
        back = self.bucket.read(copy, 0, len(data))
        for name in (key, copy):
            self.bucket.delete(name)
        if back != data or listed != [len(data)]:
            raise StorageUnavailable("An object came back from the bucket with other bytes.")
        self.bucket.abort(key, self.bucket.begin(key))

    def close(self) -> None:
        """End the threads."""
        self.ahead.close()
        self.bucket.close()

    def _begun(self, upload: str) -> _Begun:
        """Ask the bucket how the upload stands."""
        known = self._remembered(upload)
        if known is not None:
            parts = self._listed(upload, known.upload_id)
            if parts is not None:
                return replace(known, parts=parts)
        # Complete, given up by the bucket's own rules, or begun anew by another process.
        with self._lock:
            self._ids.pop(upload, None)
        generation, upload_id = self._newest(upload)
        parts = self._listed(upload, upload_id)
        if parts is None:
            return _Begun(generation, None, [])
        return self._remember(upload, _Begun(generation, upload_id, parts))

    def _listed(self, upload: str, upload_id: str | None) -> list[dict[str, Any]] | None:
        return None if upload_id is None else self.bucket.parts(UPLOADS + upload, upload_id)

    def _newest(self, upload: str) -> tuple[int, str | None]:
        keys = [entry.key for entry in self.bucket.entries(f"{IDS}{upload}/", quick=True)]
        generation = max((int(key.rsplit("/", 1)[1]) for key in keys), default=0)
        return generation, self.bucket.text(f"{IDS}{upload}/{generation}") if keys else None

    def _begin(self, upload: str, generation: int) -> str:
        """Begin the upload; of several processes that do so at once all go on with the first."""
        mine = self.bucket.begin(UPLOADS + upload)
        first = self._first(f"{IDS}{upload}/{generation}", mine)
        if first != mine:
            self.bucket.abort(UPLOADS + upload, mine)
        self._remember(upload, _Begun(generation, first, []))
        return first

    def _remembered(self, upload: str) -> _Begun | None:
        with self._lock:
            return self._ids.get(upload)

    def _remember(self, upload: str, begun: _Begun) -> _Begun:
        with self._lock:
            if len(self._ids) >= REMEMBERED:
                self._ids.clear()
            self._ids[upload] = replace(begun, parts=[])
        return begun

    def _first(self, key: str, text: str) -> str:
        """Write a short text unless there is one, and return the one that is there."""
        found = self.bucket.text(key)
        if found is not None:
            return found
        self.bucket.put_new(key, text.encode())
        found = self.bucket.text(key)
        if found is None:
            raise StorageUnavailable("The bucket does not keep what is written to it.")
        return found
