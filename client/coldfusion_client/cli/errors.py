"""Error code -> exit code: the only place that knows both."""

from __future__ import annotations

UNEXPECTED = 1
NOTHING_NEWER = 3
DISK = 10
UNTRUSTED = 12
ROLLED_BACK = 13
INTERRUPTED = 130

MEANINGS = {
    0: "done",
    UNEXPECTED: "something unexpected",
    2: "usage, or a request that makes no sense",
    NOTHING_NEWER: "nothing newer (pull --if-newer)",
    4: "not logged in, token expired, not invited, not allowed, or over the quota",
    5: "not found",
    6: "the server cannot be reached, fails, or asks to wait for long",
    7: "contribution refused or rejected, or bad weights",
    8: "bad data, a bad suite or a bad model",
    9: "conflict: base outdated, already contributed, ...",
    DISK: "disk or storage full, or a file that cannot be read or written",
    11: "training or evaluation failed",
    UNTRUSTED: "signature missing or wrong, another key, or a history that was changed",
    ROLLED_BACK: "the newest base is an older one than the folder's: rolled back (pull --if-newer)",
    INTERRUPTED: "interrupted",
}

EXIT_CODES = {
    "internal": UNEXPECTED,
    "unknown_name": 2,
    "duplicate_name": UNEXPECTED,
    "missing_extra": 2,
    "invalid_transition": 9,
    "not_found": 5,
    "model_not_found": 5,
    "base_not_found": 5,
    "file_not_found": 5,
    "round_not_found": 5,
    "contribution_not_found": 5,
    "token_not_found": 5,
    "suite_not_found": 5,
    "candidate_not_found": 5,
    "replay_not_found": 5,
    "invitation_not_found": 5,
    "webhook_not_found": 5,
    "events_gone": 5,
    "unauthenticated": 4,
    "token_expired": 4,
    "token_revoked": 4,
    "forbidden": 4,
    "invitation_refused": 4,
    "sign_in_refused": 4,
    "provider_unavailable": 6,
    "quota_exceeded": 4,
    "rate_limited": 6,
    "invalid_request": 2,
    "conflict": 9,
    "model_exists": 9,
    "base_outdated": 9,
    "already_contributed": 9,
    "idempotency_mismatch": 9,
    "state_conflict": 9,
    "round_not_closable": 9,
    "upload_incomplete": 9,
    "lease_lost": 9,
    "suite_changed": 9,
    "name_taken": 9,
    "too_large": 7,
    "too_slow": 6,
    "upload_refused": 7,
    "bad_weights": 7,
    "malformed_weights": 7,
    "incompatible_weights": 7,
    "non_finite_weights": 7,
    "undecodable_update": 7,
    "encoding_refused": 7,
    "digest_mismatch": 7,
    "contribution_rejected": 7,
    "bad_model": 8,
    "bad_data": 8,
    "bad_suite": 8,
    "bad_backup": DISK,
    "audit_broken": UNTRUSTED,
    "training_failed": 11,
    "evaluation_failed": 11,
    "storage_full": DISK,
    "storage_unavailable": 6,
    "database_unavailable": 6,
    "server_unreachable": 6,
    "server_error": 6,
    "untrusted": UNTRUSTED,
    "bad_signature": UNTRUSTED,
    "key_changed": UNTRUSTED,
    "history_changed": UNTRUSTED,
    "configuration": 2,
    "port_in_use": 2,
    "data_folder_too_new": 2,
    "bad_key": 2,
}


def exit_code(code: str) -> int:
    """Return the status with which a program ends because of an error of that code."""
    return EXIT_CODES.get(code, UNEXPECTED)


def epilog() -> str:
    """Return the table of exit codes for ``--help``."""
    # \b keeps the lines of a paragraph as they are.
    return "\b\nExit codes:\n" + "\n".join(
        f"  {code:>3}  {text}" for code, text in MEANINGS.items()
    )
