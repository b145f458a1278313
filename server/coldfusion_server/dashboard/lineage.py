"""The page of a model's lineage."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from coldfusion_server.api.dependencies import ModelPath
from coldfusion_server.dashboard.figures.lineage import Upto, lineage_of
from coldfusion_server.dashboard.rendering import page
from coldfusion_server.dashboard.shared_parts import shared
from coldfusion_server.dashboard.views import READ, Read

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

# In the table, too, nobody reads a thousand.
LISTED = 200


@router.api_route("/models/{owner}/{name}/lineage", methods=READ)
@shared
def lineage(
    request: Request,
    read: Read,
    name: ModelPath,
    part: Literal["lineage"] | None = None,
    upto: Upto = None,
) -> HTMLResponse:
    """Show how a range of bases came to be."""
    found = read.model(name)
    view = read.lineage(found, upto)
    return page(
        request,
        "parts/lineage.html" if part else "lineage.html",
        model=found,
        view=view,
        figure=lineage_of(view),
        cursors={} if upto is None else {"upto": upto},
        listed=LISTED,
    )
