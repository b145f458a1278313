"""Errors as the hub's clients understand them: a status, a code, and one sentence in a header."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from inspect import isawaitable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from coldfusion_server.api.errors import MEDIA_TYPE
from coldfusion_server.hub.routing import HubRoute, is_hubs
from coldfusion_shared.errors import ColdFusionError
from coldfusion_shared.schemas.common import Problem

Handler = Callable[[Request, Any], Response | Awaitable[Response]]

KINDS = (ColdFusionError, RequestValidationError, HTTPException, Exception)
# What clients make exceptions of. A file's absence is told by `no_entry`, which names the commit.
CODES = {
    "model_not_found": "RepoNotFound",
    "base_not_found": "RevisionNotFound",
    "file_not_found": "EntryNotFound",
}
# Clients tell a wrong token from a model that is not there by this very sentence.
WRONG_TOKEN = "Invalid credentials in Authorization header"
WRONG_TOKENS = frozenset({"unauthenticated", "token_expired", "token_revoked"})
# What to do next, where our own hint names programs that who has a hub client need not have.
NO_TOKEN = "Ask the operator of this Repository for one, then: hf auth login, or set HF_TOKEN."
NO_MODEL = "List what there is with: hf models ls"
KEPT_HEADERS = ("retry-after", "allow", "www-authenticate", "content-range")
# A header is one line, and proxies take no long ones.
SHOWN_LETTERS = 600


def error(
    status: int,
    message: str,
    *,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
    short: str | None = None,
) -> Response:
    """
    Return an error.

    Args:
        status: of HTTP.
        message: what is wrong and what to do next, for people.
        code: what clients make an exception of.
        headers: more of them.
        short: what the header says in place of `message`.
    """
    told = {"X-Error-Message": one_line(short or message), **(headers or {})}
    if code is not None:
        told["X-Error-Code"] = code
    return JSONResponse({"error": message}, status, headers=told)


def no_entry(message: str, commit: str) -> Response:
    """Return that a revision has no such file: what clients remember, by its commit."""
    headers = {"X-Repo-Commit": commit}
    return error(404, message, code="EntryNotFound", headers=headers)


def one_line(text: str) -> str:
    """Return `text` as the value of a header."""
    return re.sub(r"[^\x20-\x7e]+", " ", text)[:SHOWN_LETTERS].strip()


def add_hub_errors(app: FastAPI, routes: Collection[HubRoute]) -> None:
    """Put the hub's form before every handler that `app` has; call it after those were added."""
    for kind in KINDS:
        app.exception_handlers[kind] = _in_its_form(app.exception_handlers[kind], routes)


def _in_its_form(handler: Handler, routes: Collection[HubRoute]) -> Handler:
    async def chosen(request: Request, failure: Any) -> Response:
        answer = handler(request, failure)
        response = await answer if isawaitable(answer) else answer
        if not is_hubs(request.scope, routes):
            return response
        # A browser was shown a page.
        if not response.headers.get("content-type", "").startswith(MEDIA_TYPE):
            return response
        return _translated(request, Problem.model_validate_json(bytes(response.body)), response)

    return chosen


def _translated(request: Request, problem: Problem, response: Response) -> Response:
    message = " ".join(filter(None, (problem.detail, _hint(request, problem))))
    kept = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
    wrong = problem.code in WRONG_TOKENS and "authorization" in request.headers
    return error(
        _status(request, problem),
        message,
        code=CODES.get(problem.code),
        headers=kept,
        short=WRONG_TOKEN if wrong else None,
    )


def _hint(request: Request, problem: Problem) -> str | None:
    if problem.code == "model_not_found":
        return NO_MODEL
    if problem.code == "unauthenticated" and "authorization" not in request.headers:
        return NO_TOKEN
    return problem.hint


def _status(request: Request, problem: Problem) -> int:
    # As the hub has it: a visitor may see more with a token, whether or not there is anything.
    if problem.code == "model_not_found" and request.scope["state"].get("principal") is None:
        return 401
    return 400 if problem.code == "invalid_request" and problem.status == 422 else problem.status
