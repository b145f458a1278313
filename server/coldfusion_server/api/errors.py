"""Which HTTP status each error gets: the only place that knows both."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from coldfusion_shared.errors import ColdFusionError
from coldfusion_shared.schemas.common import Problem

STATUS: Mapping[str, int] = {
    "internal": 500,
    "unknown_name": 422,
    "duplicate_name": 500,
    "missing_extra": 501,
    "invalid_transition": 409,
    "not_found": 404,
    "model_not_found": 404,
    "base_not_found": 404,
    "file_not_found": 404,
    "round_not_found": 404,
    "contribution_not_found": 404,
    "token_not_found": 404,
    "suite_not_found": 404,
    "candidate_not_found": 404,
    "replay_not_found": 404,
    "invitation_not_found": 404,
    "webhook_not_found": 404,
    "events_gone": 410,
    "unauthenticated": 401,
    "token_expired": 401,
    "token_revoked": 401,
    "forbidden": 403,
    "invitation_refused": 403,
    "sign_in_refused": 403,
    "provider_unavailable": 503,
    # And not 429: trying again blindly does not help.
    "quota_exceeded": 403,
    "rate_limited": 429,
    "invalid_request": 422,
    "conflict": 409,
    "model_exists": 409,
    "base_outdated": 409,
    "already_contributed": 409,
    "idempotency_mismatch": 409,
    "state_conflict": 409,
    "round_not_closable": 409,
    "upload_incomplete": 409,
    "lease_lost": 409,
    "suite_changed": 409,
    "name_taken": 409,
    "too_large": 413,
    "too_slow": 408,
    "upload_refused": 403,
    "bad_weights": 422,
    "malformed_weights": 422,
    "incompatible_weights": 422,
    "non_finite_weights": 422,
    "undecodable_update": 422,
    "encoding_refused": 422,
    "digest_mismatch": 422,
    "contribution_rejected": 422,
    "bad_model": 422,
    "bad_data": 422,
    "bad_suite": 422,
    "bad_backup": 422,
    "audit_broken": 500,
    "training_failed": 500,
    "evaluation_failed": 500,
    "storage_full": 507,
    "storage_unavailable": 503,
    "database_unavailable": 503,
    "server_unreachable": 503,
    "server_error": 500,
    "untrusted": 422,
    "bad_signature": 422,
    "key_changed": 409,
    "history_changed": 409,
    "configuration": 500,
    "port_in_use": 500,
    "data_folder_too_new": 500,
    "bad_key": 500,
}

# What passes by itself is worth another try; a client waits this long, in seconds.
RETRY_AFTER: Mapping[str, int] = {
    "storage_unavailable": 5,
    "database_unavailable": 2,
    "provider_unavailable": 5,
}

MEDIA_TYPE = "application/problem+json"


def problem(error: ColdFusionError, instance: str, request_id: str | None) -> Problem:
    """Return the problem details that tell `error`."""
    status = STATUS[error.code]
    return Problem(
        type=f"urn:coldfusion:{error.code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=error.message,
        code=error.code,
        instance=instance,
        hint=error.hint,
        tensors=list(error.tensors),
        retry_after=_retry_after(error),
        request_id=request_id,
    )


def headers(error: ColdFusionError) -> dict[str, str]:
    """Return the headers that go with the problem details."""
    seconds = _retry_after(error)
    if seconds is not None:
        return {"Retry-After": str(seconds)}
    if STATUS[error.code] == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": "Bearer"}
    return {}


def _retry_after(error: ColdFusionError) -> int | None:
    return error.retry_after or RETRY_AFTER.get(error.code)
