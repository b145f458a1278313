"""What clients ask before they push: that the repository is there, and that its card is fine."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from starlette.responses import JSONResponse, Response

from coldfusion_server.hub.answers import error
from coldfusion_server.hub.bodies import Body, read
from coldfusion_server.hub.refused import OPERATORS, VERSIONS
from coldfusion_server.hub.routing import Call, post
from coldfusion_server.services.revisions import MAIN, revision_of
from coldfusion_shared.errors import BaseNotFound, ModelNotFound

Word = Annotated[str, Field(max_length=200)]


class _Wanted(Body):
    name: Word
    organization: Word | None = None
    type: Word | None = "model"


def create(call: Call) -> Response:
    """Say that a model is there already; new ones are made by the operator alone."""
    wanted = read(call, _Wanted)
    name = "/".join(filter(None, (wanted.organization, wanted.name)))
    if wanted.type in (None, "model"):
        try:
            revision_of(call.ctx, name, MAIN, call.who)
        except ModelNotFound:
            return error(403, f"There is no model {ascii(name)} here that you may see. {OPERATORS}")
        told = f"The model {name} is there already."
        body = {"error": told, "url": f"{call.base_url}/{name}"}
        return JSONResponse(body, 409, headers={"X-Error-Message": told})
    return error(403, OPERATORS)


def branch(call: Call) -> Response:
    """Say that a revision is there already; there are no branches besides."""
    revision_of(call.ctx, call.model, MAIN, call.who)
    try:
        revision_of(call.ctx, call.model, call.values["rev"], call.who)
    except BaseNotFound:
        return error(403, VERSIONS)
    return error(409, "This revision is there already.")


def validate_card(call: Call) -> Response:
    """Find no fault: cards are written by us, and those of pushes are not taken."""
    return JSONResponse({"errors": [], "warnings": []})


ROUTES = (
    post("/api/repos/create", create),
    post("/api/models/{owner}/{name}/branch/{rev}", branch),
    post("/api/validate-yaml", validate_card),
)
