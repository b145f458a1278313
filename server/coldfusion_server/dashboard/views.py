"""
The pages, and their parts: `?part=` answers one part alone, for `static/live.js`.

A view reads what it shows and hands it to a template; `HEAD` works as `GET` does.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import HTMLResponse

from coldfusion_server.api.dependencies import BaseUrl, Ctx, ModelPath, Who
from coldfusion_server.dashboard.figures import of_model, of_round
from coldfusion_server.dashboard.loading import Reader
from coldfusion_server.dashboard.rendering import page
from coldfusion_server.dashboard.shared_parts import shared
from coldfusion_server.services.paging import Window

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

READ = ["GET", "HEAD"]
MODELS, CONTRIBUTIONS, HISTORY = 24, 50, 20

# The templates of a round's parts, by their names in addresses.
ROUND_PARTS = {"round": "summary", "figures": "figures", "contributions": "contributions"}

Cursor = Annotated[str | None, Query(max_length=20)]
# One whose scores are drawn.
DataSet = Annotated[str | None, Query(max_length=500)]
ModelPart = Literal["current", "waiting", "round", "scores", "course", "history", "storage"] | None


def _reader(ctx: Ctx, who: Who) -> Reader:
    return Reader(ctx, who)


Read = Annotated[Reader, Depends(_reader)]


@router.api_route("/", methods=READ)
@shared
def overview(
    request: Request,
    read: Read,
    url: BaseUrl,
    part: Literal["models", "waiting"] | None = None,
    models: Cursor = None,
) -> HTMLResponse:
    """Show every model that the visitor may read."""
    values: dict[str, Any] = {"waits": read.waiting(), "model": None, "url": url}
    if part != "waiting":
        values |= {"cards": read.overview(Window(models, MODELS)), "paged": models is not None}
    return page(request, f"parts/{part}.html" if part else "overview.html", **values)


@router.api_route("/models/{owner}/{name}", methods=READ)
@shared
def model(
    request: Request,
    read: Read,
    url: BaseUrl,
    name: ModelPath,
    part: ModelPart = None,
    contributions: Cursor = None,
    rounds: Cursor = None,
    bases: Cursor = None,
    dataset: DataSet = None,
) -> HTMLResponse:
    """Show a model: its base, its newest round, its past; or one part of that."""
    found = read.model(name)
    values: dict[str, Any] = {"model": found, "url": url, "cursors": {}}
    given = {"contributions": contributions, "rounds": rounds, "bases": bases, "dataset": dataset}
    values["cursors"] = {key: value for key, value in given.items() if value is not None}
    if part in (None, "waiting"):
        values["waits"] = read.waiting(name)
    if part in (None, "current", "scores"):
        values["current"] = read.current(found)
    if part in (None, "round"):
        values["view"] = read.round(found, None, Window(contributions, CONTRIBUTIONS))
    if part in (None, "course"):
        values |= of_model.course_of_page(read, found)
    if part in (None, "history"):
        values["history"] = read.history(found, Window(rounds, HISTORY), Window(bases, HISTORY))
    if part in (None, "storage"):
        values["usage"] = read.usage(found)
    return page(request, f"parts/{part}.html" if part else "model.html", **values)


@router.api_route("/models/{owner}/{name}/rounds/{number}", methods=READ)
@shared
def round_(
    request: Request,
    read: Read,
    name: ModelPath,
    number: str,
    part: Literal["round", "figures", "contributions"] | None = None,
    contributions: Cursor = None,
) -> HTMLResponse:
    """Show one round with all that was contributed to it, or one part of that."""
    view = read.round(read.model(name), number, Window(contributions, CONTRIBUTIONS))
    values: dict[str, Any] = {"model": view.model, "view": view, "cursors": {}}
    if contributions is not None:
        values["cursors"] = {"contributions": contributions}
    if part in (None, "figures"):
        values["drawn"] = of_round.of_page(read, view)
    template = f"parts/round_{ROUND_PARTS[part]}.html" if part else "round.html"
    return page(request, template, **values)


@router.api_route("/models/{owner}/{name}/bases/{version}", methods=READ)
@shared
def base(
    request: Request,
    read: Read,
    url: BaseUrl,
    name: ModelPath,
    version: str,
    part: Literal["base"] | None = None,
) -> HTMLResponse:
    """Show one base: its files, what it was made of, how good it is."""
    view = read.base(name, version)
    template = "parts/base.html" if part else "base.html"
    return page(request, template, model=view.model, view=view, url=url)


@router.api_route("/contributions/{number}", methods=READ)
@shared
def contribution(
    request: Request, read: Read, number: str, part: Literal["contribution"] | None = None
) -> HTMLResponse:
    """Show a contribution's receipt."""
    template = "parts/contribution.html" if part else "contribution.html"
    view = read.contribution(number)
    return page(request, template, item=view.item, view=view)


@router.api_route("/contributors/{name:path}", methods=READ)
@shared
def contributor(
    request: Request,
    read: Read,
    name: str,
    part: Literal["contributor"] | None = None,
    contributions: Cursor = None,
) -> HTMLResponse:
    """Show what somebody has contributed, as far as the visitor may see it."""
    view = read.contributor(name, Window(contributions, CONTRIBUTIONS))
    cursors = {} if contributions is None else {"contributions": contributions}
    template = "parts/contributor.html" if part else "contributor.html"
    return page(request, template, view=view, cursors=cursors)
