"""The bytes of a push, as git-lfs has them sent: in one request, or in parts."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.responses import JSONResponse, Response

from coldfusion_server.api.admission import Admission
from coldfusion_server.api.errors import STATUS
from coldfusion_server.hub.answers import one_line
from coldfusion_server.hub.bodies import Body, read
from coldfusion_server.hub.routing import Call, post
from coldfusion_server.services import parts, staging
from coldfusion_shared.errors import ColdFusionError
from coldfusion_shared.schemas.common import Sha256, Size

MEDIA_TYPE = "application/vnd.git-lfs+json"
BASIC, MULTIPART = "basic", "multipart"


class _Object(Body):
    oid: Sha256
    size: Size


class _Batch(Body):
    operation: Literal["upload"]
    transfers: Annotated[list[str], Field(max_length=20)] = [BASIC]
    objects: Annotated[list[_Object], Field(max_length=staging.MAX_FILES)]
    hash_algo: Literal["sha256"] = "sha256"


class _Completed(Body):
    oid: Sha256 | None = None


def batch(call: Call) -> Response:
    """Say of each object where its bytes go, that they are here, or why they are not taken."""
    asked = read(call, _Batch)
    wanted = [staging.Wanted(item.oid, item.size) for item in asked.objects]
    places = staging.stage(
        call.ctx,
        call.model,
        call.who,
        wanted,
        call.base_url,
        in_parts=MULTIPART in asked.transfers,
    )
    body = {
        "transfer": MULTIPART if any(place.in_parts for place in places) else BASIC,
        "objects": [_told(call, place) for place in places],
    }
    return JSONResponse(body, media_type=MEDIA_TYPE)


def complete(call: Call) -> Response:
    """Look that all parts have arrived; the URL is the credential."""
    path = call.request.url.path
    parts.signed_size(call.ctx, "POST", path, call.request.query_params)
    read(call, _Completed)
    staging.check_parts(call.ctx, call.values["upload"])
    return JSONResponse({"success": True}, media_type=MEDIA_TYPE)


def verify(call: Call) -> Response:
    """Look that an object has arrived whole."""
    sent = read(call, _Object)
    wanted = [staging.Wanted(sent.oid, sent.size)]
    staging.check_arrived(call.ctx, call.model, call.who, wanted)
    return JSONResponse({}, media_type=MEDIA_TYPE)


def _told(call: Call, place: staging.Place) -> dict[str, Any]:
    told: dict[str, Any] = {"oid": place.file.sha256, "size": place.file.size}
    if place.error is not None:
        return {**told, "error": _error(place.error)}
    if not place.urls:
        return told
    action = _in_parts(call, place) if place.in_parts else {"href": place.urls[1]}
    verified = {"href": f"{call.base_url}/{call.model}.git/info/lfs/verify"}
    return {**told, "authenticated": True, "actions": {"upload": action, "verify": verified}}


def _in_parts(call: Call, place: staging.Place) -> dict[str, Any]:
    path = f"/{call.model}.git/info/lfs/complete/{place.upload}"
    expires_at = call.ctx.now() + timedelta(minutes=call.ctx.settings.url_minutes)
    href = parts.signed_url(call.ctx, "POST", call.base_url, path, place.file.size, expires_at)
    urls = {str(number): url for number, url in place.urls.items()}
    return {"href": href, "header": {"chunk_size": str(place.part_bytes), **urls}}


def _error(error: ColdFusionError) -> dict[str, Any]:
    message = " ".join(filter(None, (error.message, error.hint)))
    return {"code": STATUS[error.code], "message": one_line(message)}


_LFS = "/{owner}/{name}.git/info/lfs"
ROUTES = (
    post(f"{_LFS}/objects/batch", batch),
    post(f"{_LFS}/verify", verify),
    post(f"{_LFS}/complete/{{upload}}", complete, Admission(visitors=True, body_bytes=262_144)),
)
