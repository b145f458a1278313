"""The Jinja2 environment: everything that is not our own markup is escaped."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from coldfusion_server.dashboard import charts, formats, telling, words
from coldfusion_shared import __version__
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.rounds import RoundState

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
EVENTS = (
    "model.created",
    "model.policy",
    "model.rolled_back",
    "model.replayed",
    "base.published",
    "evaluation.posted",
    "evaluation.failed",
    "suite.registered",
    "round.opened",
    "round.scheduled",
    *(f"round.{state}" for state in RoundState),
    *(f"contribution.{state}" for state in ContributionState),
    *(f"contribution.{what}" for what in ("kept", "carried", "measured", "rebased", "erased")),
)


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Return the response that shows `template`."""
    values["path"] = request.url.path
    values["principal"] = getattr(request.state, "principal", None)
    return HTMLResponse(environment().get_template(template).render(values), status, HEADERS)


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
    made.globals |= {
        "asset": asset,
        "charts": charts,
        "count": formats.count,
        "events": ", ".join(f"sse:{name}" for name in EVENTS),
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
