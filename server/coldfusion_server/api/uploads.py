"""The bytes of uploads, for stores that have no URLs of their own: raw streams, never forms."""

from __future__ import annotations

import anyio
from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from coldfusion_server.api.dependencies import Ctx
from coldfusion_server.api.lengths import content_length
from coldfusion_server.services import parts
from coldfusion_shared.errors import TooLarge, UploadRefused

router = APIRouter(tags=["uploads"])

BUFFER_BYTES = 2**20


@router.put("/v1/uploads/{upload}/{number}")
async def put_part(ctx: Ctx, upload: str, number: int, request: Request) -> Response:
    """
    Take one part, under the URL that the upload plan gave for it. Answers its ETag.

    With a Content-MD5 header the part is kept only if it has arrived as it was sent.
    """
    ticket = parts.check_url(ctx, request.url.path, upload, number, dict(request.query_params))
    length = content_length(request.headers)
    if length is not None and length > ticket.size:
        raise TooLarge(f"This part has {ticket.size} bytes, the body {length}.")
    md5 = parts.md5_of(request.headers.get("content-md5"))
    await anyio.to_thread.run_sync(parts.check_waiting, ctx, upload)
    receiver = await anyio.to_thread.run_sync(parts.PartReceiver, ctx, ticket, md5)
    try:
        await _receive(request, receiver)
        etag = await anyio.to_thread.run_sync(receiver.finish)
    except ClientDisconnect:
        raise UploadRefused("The connection was closed before the part had arrived.") from None
    finally:
        receiver.abort()
    return Response(status_code=200, headers={"ETag": f'"{etag}"'})


async def _receive(request: Request, receiver: parts.PartReceiver) -> None:
    """Write in blocks, each in a thread, so that a slow disk holds up nobody else."""
    buffer = bytearray()
    async for chunk in request.stream():
        buffer += chunk
        if len(buffer) >= BUFFER_BYTES:
            await anyio.to_thread.run_sync(receiver.write, bytes(buffer))
            buffer.clear()
    if buffer:
        await anyio.to_thread.run_sync(receiver.write, bytes(buffer))
