"""An object that is sent to a bucket while it is made."""

from __future__ import annotations

import hashlib
import secrets
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from coldfusion_server.storage import StoredObject, check_digest
from coldfusion_server.storage.s3.bucket import IN_FLIGHT, MIB, Bucket
from coldfusion_server.storage.s3.keys import TEMPORARY, object_key
from coldfusion_shared.errors import ColdFusionError

PART_BYTES = 16 * MIB


class S3Object:
    """
    Parts to a temporary key, which is copied to its digest when it is whole.

    The digest is known only in the end. What fits into one part is sent to its digest at once.
    """

    def __init__(self, bucket: Bucket) -> None:
        """Begin an object in `bucket`."""
        self.bucket = bucket
        self.key = f"{TEMPORARY}{secrets.token_hex(16)}"
        self.digest = hashlib.sha256()
        self.size = 0
        self.buffer = bytearray()
        self.upload_id: str | None = None
        self.parts: list[dict[str, Any]] = []
        self.flying: deque[Future[dict[str, Any]]] = deque()

    def write(self, data: bytes | memoryview) -> None:
        """Hash, buffer, and send full parts while the next ones come."""
        self.digest.update(data)
        self.size += len(data)
        self.buffer += data
        while len(self.buffer) >= self._part_bytes:
            size = self._part_bytes
            self._send(bytes(memoryview(self.buffer)[:size]))
            del self.buffer[:size]

    def finish(self) -> None:
        """Send what is buffered, where the object has more than one part."""
        if self.upload_id is None:
            return
        if self.buffer:
            self._send(bytes(self.buffer))
            self.buffer.clear()
        while self.flying:
            self.parts.append(self.flying.popleft().result())

    def commit(
        self, expect: str | None = None, progress: Callable[[int], None] = lambda size: None
    ) -> StoredObject:
        """Send the rest, make one object of the parts, and copy it to its content address."""
        stored = StoredObject(self.digest.hexdigest(), self.size)
        check_digest(stored.sha256, expect)
        target = object_key(stored.sha256)
        self.finish()
        if self.upload_id is None:
            self.bucket.put(target, bytes(self.buffer))
        else:
            self.bucket.patiently(
                progress, self.bucket.complete, self.key, self.upload_id, self.parts
            )
            self.upload_id = None
            self.bucket.copy(self.key, target, self.size, progress)
            self.bucket.delete(self.key)
        self.buffer.clear()
        return stored

    def abort(self) -> None:
        """Give up what was sent to the temporary key."""
        for future in self.flying:
            future.cancel()
        self.flying.clear()
        self.buffer.clear()
        if self.upload_id is not None:
            # Where this fails, too, `clean` finds it.
            with suppress(ColdFusionError):
                self.bucket.abort(self.key, self.upload_id)
            self.upload_id = None

    @property
    def _part_bytes(self) -> int:
        """Larger and larger, because S3 takes no more than 10,000 parts of an object."""
        return PART_BYTES << ((len(self.parts) + len(self.flying)) // 1000)

    def _send(self, data: bytes) -> None:
        if self.upload_id is None:
            self.upload_id = self.bucket.begin(self.key)
        number = len(self.parts) + len(self.flying) + 1
        self.flying.append(
            self.bucket.pool.submit(self.bucket.send, self.key, self.upload_id, number, data)
        )
        if len(self.flying) > IN_FLIGHT:
            self.parts.append(self.flying.popleft().result())
