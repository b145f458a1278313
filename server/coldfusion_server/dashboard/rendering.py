"""The Jinja2 environment: everything that is not our own markup is escaped."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from coldfusion_server.dashboard import beside, charts, formats, said, telling, words
from coldfusion_server.dashboard.decisions.catalogue import offers
from coldfusion_server.services.tokens import may
from coldfusion_shared import __version__
from coldfusion_shared.event_types import EVENT_TYPES, RESET
from coldfusion_shared.schemas.tokens import Role
from coldfusion_shared.weights.layout import is_weights

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"
HEADERS = {
    # A page tells of one visitor's rights at one moment, so nothing on the way may keep it.
    "Cache-Control": "private, no-store",
    "Vary": "Cookie",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    # Under "no-referrer" browsers post our own forms with "Origin: null", as if from afar.
    "Referrer-Policy": "same-origin",
}

FILTERS = (
    "capitalize_first",
    "change",
    "duration",
    "gain",
    "iso",
    "markdown",
    "printable",
    "score",
    "sentence",
    "size",
    "utc",
    "value",
)

# What the stream tells of; an EventSource hears only the names that it asks for.
EVENTS = (*EVENT_TYPES, RESET)


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Return the response that shows `template`."""
    # As it stands in addresses: a contributor's name may have any letters.
    values["path"] = quote(request.scope["path"])
    values["principal"] = who = getattr(request.state, "principal", None)
    values["oversees"] = who is not None and may(who, Role.MAINTAINER)
    # Whole pages say what came of a decision; a part that is fetched again has no place for it.
    values["outcome"] = None if template.startswith("parts/") else said.heard(request)
    content = environment().get_template(template).render(values)
    shown = HTMLResponse(content, status, HEADERS)
    if values["outcome"] is not None and request.method == "GET":
        said.forget(request, shown)
    return shown


@cache
def environment() -> Environment:
    """Return the environment with our filters; one for the process."""
    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {name: getattr(formats, name) for name in FILTERS}
    made.tests["weights"] = is_weights
    made.globals |= {
        "asset": asset,
        "beside": beside,
        "charts": charts,
        "count": formats.count,
        "events": ", ".join(f"sse:{name}" for name in EVENTS),
        "offers": offers,
        "percent": formats.percent,
        "telling": telling,
        "version": __version__,
        "words": words,
    }
    return made


@cache
def asset(name: str) -> str:
    """Return the address of a static file; it changes with the content, so it can be kept."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()
    return f"/static/{name}?v={digest[:12]}"
