"""A stored file as an answer, whole or by range."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from fastapi import Request
from starlette.responses import FileResponse, RedirectResponse, Response

from coldfusion_server.api.ranges import check_range
from coldfusion_server.services.context import Context
from coldfusion_shared.schemas.files import FileEntry

# Of a route that sends a file, for the document.
ANSWERS: dict[int | str, dict[str, Any]] = {
    206: {"description": "part of the file"},
    304: {"description": "not modified"},
    307: {"description": "the file is to be had from the object store, for a while"},
}


class StoredFile(FileResponse):
    """Sends larger pieces than starlette: each one costs a change of threads and a system call."""

    chunk_size = 2**18


def send(ctx: Context, file: FileEntry, request: Request) -> Response:
    """Answer with a stored file, whole or by range, or where it is. The ETag is its SHA-256."""
    etag = f'"{file.sha256}"'
    if matches(request, etag):
        return Response(status_code=304, headers={"ETag": etag})
    if ctx.store.local_path(file.sha256) is None:
        return _elsewhere(ctx, file, etag, request)
    check_range(request, ctx.store.size(file.sha256))
    headers = {"ETag": etag, "Cache-Control": "private, no-transform"}
    stored = ctx.store.local_path(file.sha256)
    assert stored is not None, "the local store has files"
    return StoredFile(
        stored,
        headers=headers,
        media_type="application/octet-stream",
        filename=file.path.rsplit("/", 1)[-1],
    )


def matches(request: Request, etag: str) -> bool:
    """Compare weakly, as RFC 9110 has it: a proxy that compresses makes our ETags weak ones."""
    given = [part.strip() for part in request.headers.get("if-none-match", "").split(",")]
    return "*" in given or etag in (part.removeprefix("W/") for part in given)


def _elsewhere(ctx: Context, file: FileEntry, etag: str, request: Request) -> Response:
    """Send the client to the store; what a HEAD asks is known here."""
    headers = {"ETag": etag, "Cache-Control": "private, no-store", "Accept-Ranges": "bytes"}
    if request.method == "HEAD":
        headers["Content-Length"] = str(file.size)
        return Response(headers=headers, media_type="application/octet-stream")
    lifetime = timedelta(minutes=ctx.settings.url_minutes)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", file.path.rsplit("/", 1)[-1])
    url = ctx.store.object_url(file.sha256, lifetime, name)
    assert url is not None, "a store has files or URLs"
    return RedirectResponse(url, status_code=307, headers=headers)
