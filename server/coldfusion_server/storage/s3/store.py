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
from coldfusion_shared.errors import StorageUnavailable
from coldfusion_shared.weights.checkpoint import ByteSource
from coldfusion_shared.weights.windows import ReadAhead

# What S3 asks of every part of an upload but its last one.
MIN_PART_BYTES = 5 * MIB
# Longer than any single object takes to write; what is older belongs to a process that died.
ABANDONED = timedelta(hours=24)
# Ids of uploads that a process remembers, so that it need not ask for each part's URL.
REMEMBERED = 10_000


class S3Store:
    """An `ObjectStore` in a bucket, which all processes of the server share."""

    min_part_bytes = MIN_PART_BYTES

    def __init__(self, options: S3Options) -> None:
        """Open no connection yet; `check` does."""
        self.bucket = Bucket(options)
        self.ahead = ReadAhead()
        self._ids: dict[str, str] = {}
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
        upload_id = self._upload_id(upload) or self._begin(upload)
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
            for part in self._parts(upload)
        }

    def adopt(
        self, upload: str, expect: str, progress: Callable[[int], None] = lambda size: None
    ) -> StoredObject:
        """Complete the upload, read it once to verify it, and copy it inside of the bucket."""
        key = UPLOADS + upload
        parts = self._parts(upload)
        if parts:
            self.bucket.complete(key, str(self._upload_id(upload)), parts)
        size = self.bucket.size(key)
        if size is None:
            raise StorageUnavailable(f"The upload {upload} is not in the bucket.")
        digest = hashlib.sha256()
        for block in self.bucket.blocks(key, size):
            digest.update(block)
            progress(len(block))
        stored = StoredObject(digest.hexdigest(), size)
        check_digest(stored.sha256, expect)
        self.bucket.copy(key, object_key(stored.sha256))
        return stored

    def pending_uploads(self) -> list[str]:
        """Return the uploads that are unfinished, or finished and not yet removed."""
        # MinIO lists multipart uploads of one exact key only; there their ids tell.
        unfinished = {item.key.removeprefix(UPLOADS) for item in self.bucket.multiparts(UPLOADS)}
        finished = {entry.key.removeprefix(UPLOADS) for entry in self.bucket.entries(UPLOADS)}
        named = {entry.key.removeprefix(IDS) for entry in self.bucket.entries(IDS)}
        return sorted(unfinished | finished | named)

    def discard_upload(self, upload: str) -> None:
        """Abort the multipart upload, and remove what it had become."""
        key = UPLOADS + upload
        # Also those that lost when several began at once and died before they gave theirs up.
        found = {item.upload_id for item in self.bucket.multiparts(key) if item.key == key}
        for upload_id in found | {self._upload_id(upload)}:
            if upload_id is not None:
                self.bucket.abort(key, upload_id)
        self.bucket.delete(key)
        self._forget(upload)

    def claim(self, owner: str) -> str:
        """Write the owner's name unless there is one; return the one that is there."""
        return self._first(OWNER, owner)

    def clean(self) -> None:
        """Remove temporary objects that nobody can be writing any more."""
        before = datetime.now(UTC) - ABANDONED
        for item in list(self.bucket.multiparts(TEMPORARY)):
            if item.begun_at < before:
                self.bucket.abort(item.key, item.upload_id)
        for entry in list(self.bucket.entries(TEMPORARY)):
            if entry.written_at < before:
                self.bucket.delete(entry.key)

    def free_bytes(self) -> int | None:
        """Return null: a bucket does not tell."""
        return None

    def check(self) -> None:
        """Write, read, list and remove a small object, and begin a multipart upload."""
        key, data = f"{TEMPORARY}{secrets.token_hex(16)}", secrets.token_bytes(64)
        self.bucket.put(key, data)
        listed = [entry.size for entry in self.bucket.entries(key)]
        back = self.bucket.read(key, 0, len(data))
        self.bucket.delete(key)
        if back != data or listed != [len(data)]:
            raise StorageUnavailable("An object came back from the bucket with other bytes.")
        self.bucket.abort(key, self.bucket.begin(key))

    def close(self) -> None:
        """End the threads."""
        self.ahead.close()
        self.bucket.close()

    def _parts(self, upload: str) -> list[dict[str, Any]]:
        upload_id = self._upload_id(upload)
        if upload_id is None:
            return []
        parts = self.bucket.parts(UPLOADS + upload, upload_id)
        if parts is None:
            # Complete, or given up by another process or by the bucket's own rules.
            self._forget(upload)
        return parts or []

    def _upload_id(self, upload: str) -> str | None:
        with self._lock:
            known = self._ids.get(upload)
        if known is None:
            known = self.bucket.text(IDS + upload)
        if known is not None:
            self._remember(upload, known)
        return known

    def _begin(self, upload: str) -> str:
        """Begin the upload; of several processes that do so at once all go on with the first."""
        mine = self.bucket.begin(UPLOADS + upload)
        first = self._first(IDS + upload, mine)
        if first != mine:
            self.bucket.abort(UPLOADS + upload, mine)
        self._remember(upload, first)
        return first

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

    def _remember(self, upload: str, upload_id: str) -> None:
        with self._lock:
            if len(self._ids) >= REMEMBERED:
                self._ids.clear()
            self._ids[upload] = upload_id

    def _forget(self, upload: str) -> None:
        with self._lock:
            self._ids.pop(upload, None)
        self.bucket.delete(IDS + upload)
