"""What becomes of the files of a push, told before a byte of them is sent."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

from pydantic import Field
from starlette.responses import JSONResponse, Response

from coldfusion_server.hub.bodies import Body, read
from coldfusion_server.hub.routing import Call, post
from coldfusion_server.hub.targets import Target, target_of
from coldfusion_server.services import staging
from coldfusion_server.services.pushed_files import Fate, check_has_weights, fates_of
from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.schemas.common import Size

# Clients ask for so many files at a time; what has more comes in several requests, and nobody
# knows of one of them whether there are weights in the others.
ASKED_AT_A_TIME = 256


class _File(Body):
    path: Annotated[str, Field(min_length=1, max_length=1000)]
    sample: Annotated[str | None, Field(max_length=4096)] = None
    size: Size | None = None


class _Asked(Body):
    files: Annotated[list[_File], Field(max_length=1000)]


def preupload(call: Call) -> Response:
    """Refuse what is no part of a contribution, and let the rest be sent or left out."""
    target = target_of(call)
    asked = read(call, _Asked).files
    fates = fates_of([(file.path, _sample(file), file.size) for file in asked])
    if target.number is None and len(asked) < ASKED_AT_A_TIME:
        check_has_weights(fates)
    sizes = {
        file.path: file.size
        for file, fate in zip(asked, fates, strict=True)
        if fate == Fate.TAKEN and file.size is not None
    }
    # By Xet a refusal comes without its reasons.
    staging.check_announced(call.ctx, call.model, call.who, sizes)
    told = [_told(file, fate, target) for file, fate in zip(asked, fates, strict=True)]
    return JSONResponse({"files": told})


def _told(file: _File, fate: Fate, target: Target) -> dict[str, Any]:
    taken = fate == Fate.TAKEN
    known = target.files.get(file.path) if taken else None
    return {
        "path": file.path,
        "uploadMode": "lfs" if taken else "regular",
        "shouldIgnore": not taken,
        # What has not changed is not sent.
        **({} if known is None else {"oid": known.sha256}),
    }


def _sample(file: _File) -> bytes | None:
    try:
        return None if file.sample is None else base64.b64decode(file.sample, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("The sample of a file is no base64.") from None


ROUTES = (post("/api/models/{owner}/{name}/preupload/{rev}", preupload),)
