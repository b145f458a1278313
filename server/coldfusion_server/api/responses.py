"""Problem details as responses, for errors wherever they come up."""

from __future__ import annotations

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from coldfusion_server.api import errors
from coldfusion_shared.errors import ColdFusionError, InvalidRequest
from coldfusion_shared.schemas.common import Problem

log = structlog.get_logger("coldfusion.http")

# So much of what was asked for is said again, in answers and in the log, in letters.
SHOWN_PATH = 500
SHOWN_WORDS = 1000


def problem_response(error: ColdFusionError, path: str, request_id: str | None) -> Response:
    """Return the response that tells `error`."""
    body = errors.problem(error, path[:SHOWN_PATH], request_id)
    if body.status >= 500:
        # What the operator has to mend: who asked is told it, and the log, too.
        log.error("failed", code=error.code, why=error.message)
    return JSONResponse(
        body.model_dump(mode="json", exclude_none=True),
        body.status,
        headers=errors.headers(error),
        media_type=errors.MEDIA_TYPE,
    )


def add_handlers(app: FastAPI) -> None:
    """Answer every error of `app` as problem details."""

    @app.exception_handler(ColdFusionError)
    async def ours(request: Request, error: ColdFusionError) -> Response:
        return problem_response(error, request.url.path, request.state.request_id)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        ours = InvalidRequest(f"{where}: {first['msg']}."[:SHOWN_WORDS])
        return problem_response(ours, request.url.path, request.state.request_id)

    @app.exception_handler(HTTPException)
    async def of_framework(request: Request, error: HTTPException) -> Response:
        path = request.url.path[:SHOWN_PATH]
        body = Problem(
            type="about:blank",
            title=str(error.detail),
            status=error.status_code,
            detail=f"{error.detail}: {request.method} {path}",
            code="not_found" if error.status_code == 404 else "invalid_request",
            instance=path,
            request_id=request.state.request_id,
        )
        return JSONResponse(
            body.model_dump(mode="json", exclude_none=True),
            error.status_code,
            headers=dict(error.headers or {}),
            media_type=errors.MEDIA_TYPE,
        )

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> Response:
        ours = ColdFusionError(
            "The Repository met an error of its own.",
            hint="Tell its operator the request id; the log has the details.",
        )
        return problem_response(ours, request.url.path, request.state.request_id)
