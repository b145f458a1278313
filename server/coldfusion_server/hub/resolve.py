"""
One file of a revision: what is known of it, and its bytes, from here or from the store.

A HEAD is always answered here. Clients then ask for the bytes, each time anew at this address, and
are sent on to the store; so no signed URL outlives its hour in the middle of a download, and none
is asked by HEAD, for which it is not signed. Where the store has our own host name they are not
sent on: there some clients would show it their token, and it would refuse a request that is signed
and has a token besides.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response, StreamingResponse

from coldfusion_server.api.files import StoredFile, matches
from coldfusion_server.api.ranges import check_range, range_of
from coldfusion_server.hub.answers import no_entry
from coldfusion_server.hub.reading import headers_of
from coldfusion_server.hub.routing import Call, get
from coldfusion_server.services.revisions import Revision, revision_of
from coldfusion_server.storage import ObjectStore
from coldfusion_shared.errors import FileNotInBase
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.weights.checkpoint import ByteSource

MEDIA_TYPE = "application/octet-stream"
# Read from the store and sent at a time.
BLOCK_BYTES = 2**20


def resolve(call: Call) -> Response:
    """Send a file, whole or by range, or where it is; tell a HEAD all that is known of it."""
    revision = revision_of(call.ctx, call.model, call.values["rev"], call.who)
    try:
        file = revision.file(call.values["path"])
    except FileNotInBase as error:
        return no_entry(error.message, revision.commit)
    headers = _headers(revision, file)
    if matches(call.request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    if call.request.method == "HEAD":
        length = {"Content-Length": str(file.size)}
        return Response(headers={**headers, **length}, media_type=MEDIA_TYPE)
    check_range(call.request, file.size)
    return _bytes(call, file, headers)


def _headers(revision: Revision, file: FileEntry) -> dict[str, str]:
    etag = f'"{file.sha256}"'
    return {
        **headers_of(revision),
        "ETag": etag,
        "X-Linked-ETag": etag,
        "X-Linked-Size": str(file.size),
        "Accept-Ranges": "bytes",
        # What changes the bytes on the way changes their length, too.
        "Cache-Control": "no-store, no-transform",
        "Content-Disposition": f'attachment; filename="{_plain(file)}"',
    }


def _bytes(call: Call, file: FileEntry, headers: Mapping[str, str]) -> Response:
    store = call.ctx.store
    path = store.local_path(file.sha256)
    if path is not None:
        # It is looked at here, where a lost object is told as one.
        store.size(file.sha256)
        return StoredFile(path, headers=dict(headers), media_type=MEDIA_TYPE)
    lifetime = timedelta(minutes=call.ctx.settings.url_minutes)
    url = store.object_url(file.sha256, lifetime, _plain(file))
    assert url is not None, "a store has files or URLs"
    if urlsplit(url).hostname != urlsplit(call.base_url).hostname:
        return RedirectResponse(url, 302, headers=dict(headers))
    return _passed_on(call, store, file, headers)


def _passed_on(
    call: Call, store: ObjectStore, file: FileEntry, headers: Mapping[str, str]
) -> Response:
    """Send what the store has through this process, a block at a time."""
    asked = range_of(call.request, file.size)
    if call.request.headers.get("if-range", headers["ETag"]) != headers["ETag"]:
        asked = None
    start, stop = asked or (0, file.size)
    told = {**headers, "Content-Length": str(stop - start)}
    if asked is not None:
        told["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size}"
    # Opened before anything is sent: where the store is away, that can still be told.
    blocks = _blocks(store.source(file.sha256), start, stop)
    return StreamingResponse(blocks, 200 if asked is None else 206, told, MEDIA_TYPE)


async def _blocks(source: ByteSource, start: int, stop: int) -> AsyncIterator[bytes]:
    try:
        while start < stop:
            block = bytearray(min(BLOCK_BYTES, stop - start))
            await run_in_threadpool(source.read_into, start, memoryview(block))
            start += len(block)
            yield bytes(block)
    finally:
        source.close()


def _plain(file: FileEntry) -> str:
    """Return what a browser calls the file."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", file.path.rsplit("/", 1)[-1])


ROUTES = (get("/{owner}/{name}/resolve/{rev}/{path*}", resolve),)
