"""
The body and the headers of a delivery. Pure.

Signed as the Standard Webhooks specification has it (standardwebhooks.com): HMAC-SHA256 over id,
time and body, so that nobody else can make one, and an old one cannot be sent again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from coldfusion_shared import __version__
from coldfusion_shared.schemas.webhooks import WebhookFormat

PREFIX = "whsec_"
SECRET_BYTES = 32


def new_secret() -> str:
    """Return a secret that nobody has had before."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def body_of(event: Mapping[str, Any], form: WebhookFormat) -> dict[str, Any]:
    """Return what is posted for an event, as JSON has it."""
    if form == WebhookFormat.GITHUB:
        return {"event_type": event["type"], "client_payload": dict(event)}
    return dict(event)


def encoded(body: Mapping[str, Any]) -> bytes:
    """Return a body as it is signed and sent, the same at every try."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def headers_of(
    identity: str,
    now: datetime,
    body: bytes,
    secret_texts: Sequence[str],
    form: WebhookFormat,
    authorization: str | None,
) -> dict[str, str]:
    """
    Return the headers of a delivery.

    Args:
        identity: of the delivery, the same at every try.
        now: the time of this try.
        body: what is sent.
        secret_texts: the webhook's, the new one first where it was just replaced.
        form: what the body is.
        authorization: value of a header for the receiver's own check.
    """
    stamp = str(int(now.timestamp()))
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json",
        # What is packed can be a thousand times as large as what was sent.
        "Accept-Encoding": "identity",
        "User-Agent": f"coldfusion-server/{__version__}",
        "webhook-id": identity,
        "webhook-timestamp": stamp,
        "webhook-signature": " ".join(
            signature(secret, identity, stamp, body) for secret in secret_texts
        ),
    }
    if form == WebhookFormat.GITHUB:
        headers["Accept"] = "application/vnd.github+json"
        headers["X-GitHub-Api-Version"] = "2022-11-28"
    if authorization is not None:
        headers["Authorization"] = authorization
    return headers


def signature(secret: str, identity: str, stamp: str, body: bytes) -> str:
    """Return one signature, ``v1,`` before it."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = f"{identity}.{stamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
