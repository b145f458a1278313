"""The live model card: what was stored with a base, and what has been measured of it since."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from coldfusion_server.api.bases import VersionPath
from coldfusion_server.api.dependencies import BaseUrl, Ctx, ModelPath, Who
from coldfusion_server.dashboard import card_text
from coldfusion_server.dashboard.loading import Reader
from coldfusion_server.dashboard.rendering import environment
from coldfusion_server.services import cards
from coldfusion_shared.errors import NotFound

router = APIRouter(prefix="/v1/models/{owner}/{name}/bases/{version}", tags=["bases"])

# Whoever may read it, and as it is now.
FRESH = {"Cache-Control": "private, no-cache"}
# Other people's words are in the picture; whatever they were, nothing of it would run or load.
STILL = {
    **FRESH,
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    # A model card on another site shows it.
    "Cross-Origin-Resource-Policy": "cross-origin",
}
# Room over and under the bars, for the heading and a note.
HEAD, FOOT = 56, 22

SeriesKey = Annotated[
    str | None,
    Query(pattern=r"^[0-9a-f]{12}$", description="as the card links it; the first if not given"),
]


@router.get(
    "/card",
    response_class=Response,
    responses={200: {"content": {"text/markdown": {}}, "description": "the card"}},
)
def get_card(ctx: Ctx, who: Who, url: BaseUrl, model: ModelPath, version: VersionPath) -> Response:
    """Show a base's model card with its scores against v0 and its parent, as of now."""
    stored = cards.stored_card(ctx, model, version, who)
    view = Reader(ctx, who).base(model, version)
    live = cards.live_url(url, model, view.base.version)
    scores = card_text.scores(view.results, view.failures, live)
    text = f"{stored.rstrip()}\n\n{scores}"
    return Response(text, media_type="text/markdown", headers=FRESH)


@router.get(
    "/card/gain.svg",
    response_class=Response,
    responses={200: {"content": {"image/svg+xml": {}}, "description": "the picture"}},
)
def get_gain_chart(
    ctx: Ctx, who: Who, model: ModelPath, version: VersionPath, series: SeriesKey = None
) -> Response:
    """Draw by how much a base is better than v0 on each data set; light colours, plain SVG."""
    view = Reader(ctx, who).base(model, version)
    asked = [item.series for item in view.results if series in (None, item.series.key)]
    if series is not None and not asked:
        raise NotFound(
            f"Nothing was measured of {view.base.version} that is called {series}.",
            hint="The base's card links the charts that there are.",
        )
    chosen = [item for item in asked if item.compared]
    picture = (
        environment()
        .get_template("gain.svg")
        .render(
            model=model,
            version=view.base.version,
            series=chosen[0] if chosen else None,
            head=HEAD,
            foot=FOOT,
        )
    )
    return Response(picture, media_type="image/svg+xml", headers=STILL)
