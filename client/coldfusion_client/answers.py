"""From an HTTP answer that reports a failure to an exception of our tree."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from pydantic import ValidationError

from coldfusion_client.transfer.s3_answers import PASSING, store_answer, store_error
from coldfusion_shared.errors import (
    ColdFusionError,
    Conflict,
    DigestMismatch,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
    ServerError,
    StorageFull,
    TooLarge,
    Unauthenticated,
    UploadRefused,
    all_errors,
)
from coldfusion_shared.schemas.common import Problem

RETRIED = frozenset({408, 429, 500, 502, 503, 504})

_BY_CODE = {error.code: error for error in all_errors() if error is not ColdFusionError}

# For codes that a newer server knows and this client does not.
_BY_STATUS: dict[int, type[ColdFusionError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    429: RateLimited,
    507: StorageFull,
}


def error_of(response: httpx.Response) -> ColdFusionError:
    """Return the error that an answer with a failing status stands for; its body has been read."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        return _unexplained(response)
    by_status = InvalidRequest if response.status_code < 500 else ServerError
    kind = _BY_CODE.get(problem.code) or _BY_STATUS.get(response.status_code, by_status)
    return kind(problem.detail, hint=_hint(problem, response), tensors=problem.tensors)


def passes_by(response: httpx.Response, error: ColdFusionError) -> bool:
    """Return whether the same request, whose answer stands for `error`, may go well next time."""
    answer = store_answer(response)
    damaged = response.request.method == "PUT" and isinstance(error, DigestMismatch)
    return (
        damaged
        or response.status_code in RETRIED
        or (answer is not None and answer.code in PASSING)
    )


def retry_after(response: httpx.Response) -> float | None:
    """Return how many seconds the server asks to wait, if it does."""
    value = response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _unexplained(response: httpx.Response) -> ColdFusionError:
    answer = store_answer(response)
    if answer is not None:
        return store_error(answer, response)
    # Without the query: a part's URL carries its signature there.
    where = response.url.copy_with(query=None)
    if response.status_code == 403 and response.request.method == "PUT":
        # A gateway's way to say that a signed URL has expired.
        return UploadRefused(f"{where} refused a part of the upload.")
    if response.status_code == 429:
        return RateLimited(f"{where.host} is asked too often.")
    return ServerError(
        f"{where} answered {response.status_code} and did not say why.",
        hint="Check that the address is a coldfusion server's; a proxy in between answers so, too.",
    )


def _hint(problem: Problem, response: httpx.Response) -> str | None:
    if problem.hint is None and response.status_code == 401:
        host = response.url.copy_with(path="/", query=None)
        return f"Log in with: coldfusion-client login {str(host).rstrip('/')}"
    if problem.hint is None and response.status_code >= 500 and problem.request_id:
        return f"Tell the server's operator the request's number: {problem.request_id}"
    return problem.hint
