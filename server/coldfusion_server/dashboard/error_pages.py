"""Errors as HTML where a person reads them; programs go on getting problem details."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from coldfusion_server.dashboard.rendering import page
from coldfusion_shared.errors import ColdFusionError
from coldfusion_shared.schemas.common import Problem

Handler = Callable[[Request, Any], Response | Awaitable[Response]]

KINDS = (ColdFusionError, RequestValidationError, HTTPException, Exception)
# First segments of the dashboard's own addresses.
OURS = frozenset(
    {"", "models", "contributions", "contributors", "decide", "health", "login", "logout"}
)


def add_error_pages(app: FastAPI) -> None:
    """Put a page before every handler that `app` has; call it after those were added."""
    for kind in KINDS:
        app.exception_handlers[kind] = _readable(app.exception_handlers[kind])


def _readable(handler: Handler) -> Handler:
    async def chosen(request: Request, error: Any) -> Response:
        answer = handler(request, error)
        response = await answer if isawaitable(answer) else answer
        if not _for_a_person(request):
            return response
        problem = Problem.model_validate_json(bytes(response.body))
        shown = page(request, "error.html", status=problem.status, problem=problem)
        for name in ("retry-after", "allow", "www-authenticate"):
            if name in response.headers:
                shown.headers[name] = response.headers[name]
        return shown

    return chosen


def _for_a_person(request: Request) -> bool:
    first = request.url.path.split("/")[1]
    return first in OURS or (first != "v1" and "text/html" in request.headers.get("accept", ""))
