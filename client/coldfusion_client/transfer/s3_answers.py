"""What an S3 store says when it refuses: its XML, read with care, as an error of our tree."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from html import unescape
from typing import NamedTuple

import httpx

from coldfusion_shared.errors import (
    ColdFusionError,
    DigestMismatch,
    StorageFull,
    StorageUnavailable,
    TooLarge,
    UploadRefused,
)

# Nobody's XML parser: what a stranger sends must not be able to do more than to match.
_HEAD_BYTES = 4096
_FIELD = r"<{0}>([^<]{{1,500}})</{0}>"

# Wrong bytes arrived: the part is sent again.
DAMAGED = frozenset({"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch"})
# Whatever their status is, these pass by.
PASSING = DAMAGED | {
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
}
# A fresh URL, of which the Repository has made a new upload if need be, may help.
_RENEWABLE = frozenset(
    {
        "AccessDenied",
        "AuthorizationQueryParametersError",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "NoSuchUpload",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
_FULL = frozenset({"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"})
_OPERATOR = "Tell the server's operator."
_HINTS = {
    "AccessDenied": "The server's key lacks a right in the bucket, or the clocks of server and "
    f"store differ. {_OPERATOR}",
    "RequestTimeTooSkewed": "The clocks of the server and of its store differ. Tell the server's "
    "operator to set them by the network (NTP).",
    "SignatureDoesNotMatch": "A proxy changes requests, or the server has a wrong key or region "
    f"for its bucket. {_OPERATOR}",
}
# So much lies between two clocks, in minutes, before anybody has to care.
_SKEW_MINUTES = 5


class StoreAnswer(NamedTuple):
    """An error as S3 words it."""

    code: str
    message: str


def store_answer(response: httpx.Response) -> StoreAnswer | None:
    """Return what a failed request's answer says in S3's XML; null if that is not what it is."""
    text = response.content[:_HEAD_BYTES].decode("utf-8", errors="replace")
    if "<Error>" not in text:
        return None
    code, message = (_field(name, text) for name in ("Code", "Message"))
    return StoreAnswer(code, message) if code else None


def store_error(answer: StoreAnswer, response: httpx.Response) -> ColdFusionError:
    """Return the error of our tree that `answer` stands for."""
    store = f"The object store at {response.url.host}"
    said = answer.code if not answer.message else f"{answer.message.rstrip('.')} ({answer.code})"
    hint = _clocks(response) or _HINTS.get(answer.code, _OPERATOR)
    if answer.code == "RequestTimeTooSkewed":
        return StorageUnavailable(f"{store} says that a clock is off: {said}.", hint=hint)
    if answer.code in DAMAGED:
        return DigestMismatch(
            f"{store} received other bytes than were sent: {said}.",
            hint="Give the same command again; if it happens again, a proxy changes data.",
        )
    if answer.code in _FULL:
        return StorageFull(f"{store} has no room left: {said}.", hint=_OPERATOR)
    if answer.code == "EntityTooLarge":
        return TooLarge(f"{store} refused a part of the upload as too large: {said}.")
    if answer.code in _RENEWABLE and response.request.method == "PUT":
        return UploadRefused(f"{store} refused a part of the upload: {said}.", hint=hint)
    return StorageUnavailable(f"{store} refused: {said}.", hint=hint)


def _clocks(response: httpx.Response) -> str | None:
    """Say how far the store's clock is from when the server signed the URL, if that is far."""
    try:
        signed = datetime.strptime(response.request.url.params["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
        now = parsedate_to_datetime(response.headers["Date"])
    except (KeyError, ValueError):
        return None
    minutes = round((now - signed.replace(tzinfo=UTC)).total_seconds() / 60)
    if abs(minutes) < _SKEW_MINUTES:
        return None
    return (
        f"By the store's clock the server signed this {abs(minutes)} minutes "
        f"{'ago' if minutes > 0 else 'from now'}. Give the same command again; if it is refused "
        "at once, one of their clocks is off: tell the server's operator."
    )


def _field(name: str, text: str) -> str:
    found = re.search(_FIELD.format(name), text)
    printable = (letter for letter in unescape(found[1]) if letter.isprintable()) if found else ""
    return "".join(printable).strip()
