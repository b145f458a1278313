"""What hub clients may ask for and do not get, each with a sentence that says what there is."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.responses import Response

from coldfusion_server.hub.answers import NO_MODEL, error
from coldfusion_server.hub.routing import Answer, Call, HubRoute
from coldfusion_server.services.revisions import MAIN, revision_of
from coldfusion_shared.errors import ModelNotFound

_MODEL = "/api/models/{owner}/{name}"
EVERY = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})

VERSIONS = (
    "Versions are made by this Repository alone: main and the tags v0, v1, ... move when "
    "contributions are fused. Send yours as a pull request: create_pr=True, or --create-pr."
)
MERGES = (
    "Pull requests are merged by this Repository alone, when the round that took the contribution "
    "is fused and passes its gate."
)
OPERATORS = (
    "Models are made, changed and removed by the operator of this Repository: where the server "
    "runs, see coldfusion-server model --help."
)


def _refusal(message: str) -> Answer:
    def refused(call: Call) -> Response:
        # A private model is not told of by what it refuses.
        if "owner" in call.values:
            revision_of(call.ctx, call.model, MAIN, call.who)
        return error(403, message)

    return refused


def no_model(call: Call) -> Response:
    """Say that there is no such thing: of one word, or no model at all."""
    raise ModelNotFound(
        "There is nothing of that name here: this Repository has models alone, and they are named "
        "owner/name.",
        hint=NO_MODEL,
    )


def nothing(call: Call) -> Response:
    """Say that there is no such model or, where there is, nothing at that address."""
    revision_of(call.ctx, call.model, MAIN, call.who)
    raise HTTPException(404)


def _refused(path: str, message: str, *methods: str) -> HubRoute:
    return HubRoute(path, _refusal(message), frozenset(methods))


def _missing(path: str, answer: Answer = no_model) -> HubRoute:
    return HubRoute(path, answer, EVERY)


ROUTES = (
    _refused(f"{_MODEL}/tag/{{rev}}", VERSIONS, "POST", "DELETE"),
    _refused(f"{_MODEL}/branch/{{rev}}", VERSIONS, "DELETE"),
    _refused(f"{_MODEL}/super-squash/{{rev}}", VERSIONS, "POST"),
    _refused(f"{_MODEL}/settings", OPERATORS, "PUT"),
    _refused("/api/repos/delete", OPERATORS, "DELETE"),
    _refused("/api/repos/move", OPERATORS, "POST"),
    _missing(f"{_MODEL}/{{rest*}}", nothing),
    _missing("/api/models/{name}"),
    _missing("/api/datasets/{rest*}"),
    _missing("/api/spaces/{rest*}"),
    _missing("/datasets/{owner}/{name}/resolve/{rev}/{path*}"),
    _missing("/spaces/{owner}/{name}/resolve/{rev}/{path*}"),
    _missing("/{name}/resolve/{rev}/{path*}"),
)
