"""The figures' addresses: who may read the page may have its figures."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import JSONResponse, Response

from coldfusion_server.api.dependencies import Ctx, ModelPath, Who, WindowQuery
from coldfusion_server.api.rounds import NumberPath
from coldfusion_server.dashboard.cards import FRESH, STILL
from coldfusion_server.dashboard.figures import formats, of_model, of_round
from coldfusion_server.dashboard.figures.figure import Figure
from coldfusion_server.dashboard.figures.lineage import Upto, lineage, newest
from coldfusion_server.dashboard.loading import Reader
from coldfusion_server.services.comparing import MOST
from coldfusion_server.services.paging import Window
from coldfusion_shared.errors import NotFound
from coldfusion_shared.schemas.figures import FigureTable

router = APIRouter(prefix="/v1/models/{owner}/{name}", tags=["figures"])

Kind = Literal["json", "csv", "svg"]
FigurePath = Annotated[str, Path(description="its name", max_length=40, examples=["scores"])]
KindPath = Annotated[Kind, Path(description="a table, a table for spreadsheets, or a picture")]

OfBase = Annotated[
    str | None,
    Query(max_length=20, description="of gains: which base; null: the last one that was measured"),
]

_LINK = {
    "description": 'rel="next": the rest of a round\'s, where there is more',
    "schema": {"type": "string"},
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "what the drawing shows, in the form that was asked for",
        "model": FigureTable,
        "headers": {"Link": _LINK},
        "content": {
            "text/csv": {"schema": {"type": "string"}},
            "image/svg+xml": {"schema": {"type": "string"}},
        },
    }
}


@router.get("/figures/{figure}.{kind}", response_class=JSONResponse, responses=ANSWERS)
def get_model_figure(
    ctx: Ctx,
    who: Who,
    model: ModelPath,
    figure: FigurePath,
    kind: KindPath,
    upto: Upto = None,
    version: OfBase = None,
) -> Response:
    """Show one of the drawings of a model's page as a table or as a picture."""
    read = Reader(ctx, who)
    found = read.model(model)
    make = _figure(of_model.FIGURES, figure, "a model")
    if make is newest:
        # It is drawn a range of bases at a time.
        made = lineage(read, found, upto)
    elif make is of_model.gains:
        made = of_model.gains(read, found, version)
    else:
        made = make(read, found)
    return _response(made, kind, f"{model}-{figure}")


@router.get(
    "/rounds/{number}/figures/{figure}.{kind}", response_class=JSONResponse, responses=ANSWERS
)
def get_round_figure(
    ctx: Ctx,
    who: Who,
    request: Request,
    model: ModelPath,
    number: NumberPath,
    figure: FigurePath,
    kind: KindPath,
    window: WindowQuery,
) -> Response:
    """Show one of the drawings of a round's page; of so many of its contributions at a time."""
    read = Reader(ctx, who)
    # Of more than are compared at a time the rest would be on no page.
    compared = Window(window.cursor, min(window.limit, MOST))
    view = read.round(read.model(model), number, compared)
    made = _figure(of_round.FIGURES, figure, "a round")(read, view)
    answer = _response(
        made, kind, f"{model}-round-{view.round.number}-{figure}", view.contributions.next_cursor
    )
    if cursor := view.contributions.next_cursor:
        more = request.url.include_query_params(cursor=cursor)
        answer.headers["Link"] = f'<{more.path}?{more.query}>; rel="next"'
    return answer


def _figure(
    figures: Mapping[str, Callable[..., Figure]], name: str, of: str
) -> Callable[..., Figure]:
    if name not in figures:
        raise NotFound(
            f"There is no figure of {of} that is called so.",
            hint=f"There are: {', '.join(sorted(figures)) or 'none'}.",
        )
    return figures[name]


def _response(figure: Figure, kind: Kind, name: str, next_cursor: str | None = None) -> Response:
    if kind == "json":
        table = formats.as_table(figure, next_cursor)
        return JSONResponse(table.model_dump(mode="json"), headers=FRESH)
    if kind == "svg":
        return Response(formats.as_svg(figure), media_type="image/svg+xml", headers=STILL)
    file = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    saved = {"Content-Disposition": f'attachment; filename="{file}.csv"'}
    return Response(formats.as_csv(figure), media_type="text/csv", headers={**FRESH, **saved})
