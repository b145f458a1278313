"""The few operations of S3 that this project uses, with its errors for theirs."""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Semaphore
from typing import Any, ParamSpec, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from coldfusion_server.storage.s3.connection import (
    ATTEMPTS,
    SHORT,
    S3Options,
    code_of,
    connect,
    is_gone,
    s3_errors,
)
from coldfusion_shared.errors import ColdFusionError, StorageUnavailable

P = ParamSpec("P")
T = TypeVar("T")

MIB = 2**20
# What a whole object is read in, when it is read from its beginning to its end.
BLOCK_BYTES = 8 * MIB
# An object of this size and more is copied in parts of it; S3 copies no more than 5 GiB in one.
COPY_BYTES = 64 * MIB
MAX_PARTS = 10_000
# Before a read that was cut is tried again.
FIRST_WAIT_SECONDS = 0.1
# Between two signs that something is waited for.
WAIT_SECONDS = 1.0
# Blocks of one object that are on their way at a time.
IN_FLIGHT = 4
THREADS = 16
MAX_TEXT_BYTES = 2**16
# Short requests that wait for an answer at a time, fewer than the API has threads; and how long one
# more is kept waiting.
WAITING = 16
ROOM_SECONDS = 2.0
# Entries of a listing that one answer has; S3 gives no more.
PAGE = 1000

# The service's answers to "only if there is none": there is one, or one is being made.
_EXISTS = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})


@dataclass(frozen=True)
class Entry:
    """A key in the bucket: its size in bytes and when it was written."""

    key: str
    size: int
    written_at: datetime


@dataclass(frozen=True)
class Multipart:
    """A multipart upload that is under way."""

    key: str
    upload_id: str
    begun_at: datetime


def _waited_for(future: Future[T], progress: Callable[[int], None]) -> T:
    while not wait([future], timeout=WAIT_SECONDS).done:
        progress(0)
    return future.result()


class _Cut(BotoCoreError):  # type: ignore[misc]
    """An answer that ended before its end."""

    fmt = "{error}"


class Bucket:
    """
    A bucket, or the part of one below a prefix, which no key here names.

    All methods raise `StorageUnavailable` or `StorageFull`, and `ConfigurationError` where there
    are no credentials. Safe to use from several threads.
    """

    def __init__(self, options: S3Options) -> None:
        """Open no connection yet."""
        self.options = options
        self.client = connect(options, options.endpoint)
        self.quick = connect(options, options.endpoint, SHORT)
        self.signer = self.client
        if options.public_endpoint is not None:
            self.signer = connect(options, options.public_endpoint)
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="s3")
        self.room = Semaphore(WAITING)

    def close(self) -> None:
        """End the threads and the connections."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        for client in (self.client, self.quick, self.signer):
            client.close()

    def size(self, key: str) -> int | None:
        """Return the object's size in bytes; null: there is none."""
        found = self._head(key)
        return None if found is None else int(self._told(found, "ContentLength"))

    def written_at(self, key: str) -> datetime | None:
        """Return when the object was written; null: there is none."""
        found = self._head(key)
        return None if found is None else self._told(found, "LastModified")

    def read(self, key: str, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop`, of which there are no fewer and no more."""
        for attempt in range(ATTEMPTS - 1):
            try:
                return self._read_once(key, start, stop)
            except _Cut:
                # boto3 itself tries again only until the answer has begun.
                time.sleep(FIRST_WAIT_SECONDS * 2**attempt * random.uniform(0.5, 1.0))
        with s3_errors(self.options):
            return self._read_once(key, start, stop)

    def _read_once(self, key: str, start: int, stop: int) -> bytes:
        with s3_errors(self.options):
            span = f"bytes={start}-{stop - 1}"
            answer = self.client.get_object(**self._at(key), Range=span)
        wanted = stop - start
        try:
            # One more: a gateway that ignores ranges would send all of it.
            data: bytes = answer["Body"].read(wanted + 1)
        except (BotoCoreError, HTTPError) as error:
            raise _Cut(error=error) from error
        finally:
            answer["Body"].close()
        if len(data) < wanted:
            raise _Cut(error=f"{len(data)} bytes came where {wanted} were asked for")
        if len(data) > wanted:
            raise StorageUnavailable(
                f"The bucket {self.options.bucket!r} does not know ranges: it sends more of {key} "
                "than was asked for."
            )
        return data

    def text(self, key: str) -> str | None:
        """Return a short object as text; null: there is none."""
        with self._quickly():
            try:
                answer = self.quick.get_object(**self._at(key))
            except ClientError as error:
                if is_gone(error):
                    return None
                raise
            data: bytes = answer["Body"].read(MAX_TEXT_BYTES)
            return data.decode(errors="replace")

    def blocks(self, key: str, size: int) -> Iterator[bytes]:
        """Yield an object of `size` bytes from its beginning to its end, fetched ahead."""
        waiting: deque[Future[bytes]] = deque()
        try:
            for start in range(0, size, BLOCK_BYTES):
                stop = min(start + BLOCK_BYTES, size)
                waiting.append(self.pool.submit(self.read, key, start, stop))
                if len(waiting) > IN_FLIGHT:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def put(self, key: str, data: bytes) -> None:
        """Write a small object, in place of one that is there."""
        with s3_errors(self.options):
            self.client.put_object(**self._at(key), Body=data, **self.options.encrypted())

    def put_new(self, key: str, data: bytes) -> bool:
        """Write a small object unless there is one; return whether it was written."""
        with self._quickly():
            try:
                self.quick.put_object(
                    **self._at(key), Body=data, IfNoneMatch="*", **self.options.encrypted()
                )
            except ClientError as error:
                if code_of(error) in _EXISTS:
                    return False
                raise
            return True

    def copy(self, source: str, target: str, size: int, progress: Callable[[int], None]) -> None:
        """
        Copy an object of `size` bytes inside of the bucket; they do not leave the service.

        `progress` is called again and again until it is done, with 0.
        """
        if size < COPY_BYTES:
            self.patiently(progress, self._copy_whole, source, target)
            return
        upload_id = self.begin(target)
        try:
            parts = self._copied_parts(source, target, upload_id, size, progress)
            self.patiently(progress, self.complete, target, upload_id, parts)
            if self.size(target) != size:
                raise StorageUnavailable(f"The bucket has lost {target} while it was copied.")
        except BaseException:
            with suppress(ColdFusionError):
                self.abort(target, upload_id)
            raise

    def _copied_parts(
        self,
        source: str,
        target: str,
        upload_id: str,
        size: int,
        progress: Callable[[int], None],
    ) -> list[dict[str, Any]]:
        step = max(COPY_BYTES, math.ceil(size / MAX_PARTS))
        spans = [(start, min(start + step, size)) for start in range(0, size, step)]
        waiting: deque[Future[dict[str, Any]]] = deque()
        parts = []
        try:
            for number, span in enumerate(spans, 1):
                waiting.append(
                    self.pool.submit(self._copy_part, source, target, upload_id, number, *span)
                )
                if len(waiting) == IN_FLIGHT:
                    parts.append(_waited_for(waiting.popleft(), progress))
            parts.extend(_waited_for(future, progress) for future in waiting)
        finally:
            for future in waiting:
                future.cancel()
        return parts

    def patiently(
        self,
        progress: Callable[[int], None],
        call: Callable[P, T],
        *args: P.args,
        **named: P.kwargs,
    ) -> T:
        """Return what `call` returns, and say meanwhile, again and again, that it is waited for."""
        return _waited_for(self.pool.submit(call, *args, **named), progress)

    def _copy_whole(self, source: str, target: str) -> None:
        with s3_errors(self.options):
            self.client.copy_object(
                **self._at(target), CopySource=self._at(source), **self.options.encrypted()
            )

    def _copy_part(
        self, source: str, target: str, upload_id: str, number: int, start: int, stop: int
    ) -> dict[str, Any]:
        with s3_errors(self.options):
            answer = self.client.upload_part_copy(
                **self._at(target),
                CopySource=self._at(source),
                CopySourceRange=f"bytes={start}-{stop - 1}",
                UploadId=upload_id,
                PartNumber=number,
            )
        return {"PartNumber": number, "ETag": self._told(answer, "CopyPartResult", "ETag")}

    def delete(self, key: str) -> None:
        """Remove the object; harmless if it is gone."""
        with self._quickly():
            self.quick.delete_object(**self._at(key))

    def entries(self, prefix: str, *, quick: bool = False) -> Iterator[Entry]:
        """Yield what there is below `prefix`, page by page; `quick` where somebody waits for it."""
        client = self.quick if quick else self.client
        with s3_errors(self.options):
            for page in self._pages(client, "list_objects_v2", prefix):
                for item in page.get("Contents", []):
                    yield Entry(self._name(item), int(item["Size"]), item["LastModified"])

    def begin(self, key: str) -> str:
        """Begin a multipart upload and return its id."""
        with self._quickly():
            answer = self.quick.create_multipart_upload(**self._at(key), **self.options.encrypted())
            return str(self._told(answer, "UploadId"))

    def send(self, key: str, upload_id: str, number: int, data: bytes) -> dict[str, Any]:
        """Send one part and return what `complete` wants of it."""
        with s3_errors(self.options):
            answer = self.client.upload_part(
                **self._at(key), UploadId=upload_id, PartNumber=number, Body=data
            )
            return {"PartNumber": number, "ETag": self._told(answer, "ETag")}

    def parts(self, key: str, upload_id: str) -> list[dict[str, Any]] | None:
        """Return the parts that have arrived, as S3 lists them; null: there is no such upload."""
        with self._quickly():
            try:
                pages = self.quick.get_paginator("list_parts").paginate(
                    **self._at(key), UploadId=upload_id
                )
                return [part for page in pages for part in page.get("Parts", [])]
            except ClientError as error:
                if is_gone(error):
                    return None
                raise

    def complete(self, key: str, upload_id: str, parts: list[dict[str, Any]]) -> None:
        """Make an object of the parts; harmless if another has done so or given it up."""
        listed = [{name: part[name] for name in ("PartNumber", "ETag")} for part in parts]
        with s3_errors(self.options):
            try:
                self.client.complete_multipart_upload(
                    **self._at(key), UploadId=upload_id, MultipartUpload={"Parts": listed}
                )
            except ClientError as error:
                if not is_gone(error):
                    raise

    def abort(self, key: str, upload_id: str) -> None:
        """Give up a multipart upload; harmless if it is gone."""
        with self._quickly():
            try:
                self.quick.abort_multipart_upload(**self._at(key), UploadId=upload_id)
            except ClientError as error:
                if not is_gone(error):
                    raise

    def multiparts(self, prefix: str) -> Iterator[Multipart]:
        """Yield the multipart uploads under way below `prefix`, page by page."""
        with s3_errors(self.options):
            for page in self._pages(self.client, "list_multipart_uploads", prefix):
                for item in page.get("Uploads", []):
                    yield Multipart(self._name(item), item["UploadId"], item["Initiated"])

    def url(self, operation: str, key: str, lifetime: timedelta, **params: Any) -> str:
        """Sign a URL for `operation`, under which anybody may do it for a while."""
        with s3_errors(self.options):
            return str(
                self.signer.generate_presigned_url(
                    operation,
                    Params={**self._at(key), **params},
                    ExpiresIn=int(lifetime.total_seconds()),
                )
            )

    @contextmanager
    def _quickly(self) -> Iterator[None]:
        """
        Do what somebody waits for, unless too many wait already.

        A service that takes requests and says nothing would otherwise hold every thread of the
        API, also those whose requests need no store.
        """
        if not self.room.acquire(timeout=ROOM_SECONDS):
            raise StorageUnavailable(
                f"The bucket {self.options.bucket!r} is slow: {WAITING} requests wait for it.",
                hint="Nothing that was accepted is lost. Try again in a while.",
            )
        try:
            with s3_errors(self.options):
                yield
        finally:
            self.room.release()

    def _told(self, answer: dict[str, Any], *names: str) -> Any:
        """Return what an answer says under `names`; one that lost its body on the way lacks it."""
        for name in names:
            if name not in answer:
                raise StorageUnavailable(
                    f"The bucket {self.options.bucket!r} answers without {name}, as no S3 does.",
                    hint="Nothing that was accepted is lost. Look what stands between the "
                    "Repository and the bucket.",
                )
            answer = answer[name]
        return answer

    def _head(self, key: str) -> dict[str, Any] | None:
        with self._quickly():
            try:
                found: dict[str, Any] = self.quick.head_object(**self._at(key))
            except ClientError as error:
                if is_gone(error):
                    return None
                raise
            return found

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.options.bucket, "Key": self.options.prefix + key}

    def _name(self, item: Mapping[str, Any]) -> str:
        return str(item["Key"]).removeprefix(self.options.prefix)

    def _pages(self, client: Any, operation: str, prefix: str) -> Iterator[dict[str, Any]]:
        yield from client.get_paginator(operation).paginate(
            Bucket=self.options.bucket,
            Prefix=self.options.prefix + prefix,
            PaginationConfig={"PageSize": PAGE},
        )
