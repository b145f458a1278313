"""
Uploading by Xet, as the hub's clients do unless they are told otherwise.

They ask for a token and an address, send pieces of files there in xorbs, and shards that say which
pieces make up which file. A file is put together at once, and waits for the commit that names it,
as one that came by LFS does. What may be answered 404 is: clients then do without.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakValueDictionary

import anyio
from anyio import CapacityLimiter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from coldfusion_server.api.admission import Admission
from coldfusion_server.api.lengths import content_length
from coldfusion_server.hub.answers import error
from coldfusion_server.hub.refused import EVERY
from coldfusion_server.hub.routing import Call, HubRoute, get, post
from coldfusion_server.services import rebuilding, xet_tokens, xorbs
from coldfusion_server.xet.shard import MAX_SHARD_BYTES, ShardReader
from coldfusion_shared.errors import TooLarge, Unauthenticated, UploadRefused

CAS = "/cas/{area}"
BUFFER_BYTES = 2**20
# Files that a process puts together at a time: each keeps a core busy, and clients wait for ever.
REBUILT = CapacityLimiter(2)
# Xorbs that it takes from one contributor at a time: a store may hold each in memory. Both wait in
# the server's one event loop.
XORBS_AT_A_TIME = 4
# And shards: each has its ranges in memory, and one whose file is of no use costs its sender
# nothing.
SHARDS_AT_A_TIME = 1
_turns: WeakValueDictionary[tuple[int, int], CapacityLimiter] = WeakValueDictionary()
# The route knows its own tokens, and who sends is known before the first byte is read.
OWN = Admission(own_tokens=True, streams=True)


def write_token(call: Call) -> Response:
    """Give a token and an address for the files of one push."""
    if "authorization" not in call.request.headers:
        # A browser's cookie is no right to write.
        raise Unauthenticated("This needs a token.")
    token, ends = xet_tokens.make(call.ctx, call.who, call.model, call.values["rev"])
    area = xorbs.area(call.ctx, xet_tokens.check(call.ctx, token))
    address = f"{call.base_url}/cas/{area}"
    return JSONResponse(
        {"accessToken": token, "exp": int(ends.timestamp()), "casUrl": address},
        headers={
            "X-Xet-Access-Token": token,
            "X-Xet-Token-Expiration": str(int(ends.timestamp())),
            "X-Xet-Cas-Url": address,
        },
    )


async def put_xorb(call: Call) -> Response:
    """Take a xorb."""
    ticket = await _ticket(call)
    async with _turns_of(ticket, XORBS_AT_A_TIME):
        return await _put_xorb(call, ticket)


async def _put_xorb(call: Call, ticket: xet_tokens.Ticket) -> Response:
    length = content_length(call.request.headers)
    receiver = await anyio.to_thread.run_sync(
        xorbs.receive, call.ctx, ticket, call.values["hash"], length
    )
    if receiver is None:
        # Read all the same: who sends hears nothing before the end.
        await _read(call.request, lambda data: None)
        return JSONResponse({"was_inserted": False})
    try:
        await _read(call.request, receiver.write)
        await anyio.to_thread.run_sync(receiver.finish)
    finally:
        await anyio.to_thread.run_sync(receiver.abort)
    return JSONResponse({"was_inserted": True})


async def put_shard(call: Call) -> Response:
    """Take a shard, and put its files together."""
    ticket = await _ticket(call)
    length = content_length(call.request.headers)
    if length is not None and length > MAX_SHARD_BYTES:
        raise TooLarge(f"A shard has at most {MAX_SHARD_BYTES} bytes, this one {length}.")
    async with _turns_of(ticket, SHARDS_AT_A_TIME):
        reader = ShardReader()
        await _read(call.request, reader.feed)
        await anyio.to_thread.run_sync(
            rebuilding.rebuild, call.ctx, ticket, reader.finish(), limiter=REBUILT
        )
    return JSONResponse({"result": 1})


async def absent(call: Call) -> Response:
    """Tell that this is not there, by which clients go another way."""
    return error(404, "This server does without.")


def _turns_of(ticket: xet_tokens.Ticket, at_a_time: int) -> CapacityLimiter:
    """Return what lets a sender's requests of one kind pass, so many at a time."""
    key = ticket.who.contributor_id, at_a_time
    if (turns := _turns.get(key)) is None:
        turns = _turns[key] = CapacityLimiter(at_a_time)
    return turns


async def _ticket(call: Call) -> xet_tokens.Ticket:
    """Return what the request's own token allows, before its body is read."""
    scheme, _, token = call.request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated("This needs the token of an upload.")
    return await anyio.to_thread.run_sync(xet_tokens.check, call.ctx, token.strip())


async def _read(request: Request, take: Callable[[bytes], None]) -> None:
    """Hand on the body in blocks, each in a thread, so that a slow disk holds up nobody else."""
    buffer = bytearray()
    try:
        async for chunk in request.stream():
            buffer += chunk
            if len(buffer) >= BUFFER_BYTES:
                await anyio.to_thread.run_sync(take, bytes(buffer))
                buffer.clear()
    except ClientDisconnect:
        raise UploadRefused("The connection was closed before all had arrived.") from None
    if buffer:
        await anyio.to_thread.run_sync(take, bytes(buffer))


ROUTES = (
    get("/api/models/{owner}/{name}/xet-write-token/{rev}", write_token),
    post(f"{CAS}/v1/xorbs/default/{{hash}}", put_xorb, OWN),
    post(f"{CAS}/v1/shards", put_shard, OWN),
    # As hf_xet has it from 1.1.10 to 1.2, and before.
    post(f"{CAS}/xorbs/default/{{hash}}", put_xorb, OWN),
    post(f"{CAS}/shards", put_shard, OWN),
    post(f"{CAS}/xorb/default/{{hash}}", put_xorb, OWN),
    post(f"{CAS}/shard/default/{{hash}}", put_shard, OWN),
    # What would be shared, granted, or told in another way.
    HubRoute(f"{CAS}/{{rest*}}", absent, EVERY, OWN),
    # Where clients tell how an upload went, wherever the address above lies.
    post("/v1/telemetry", absent, OWN),
)
