"""
What has to be kept and used again, and is nobody's business who reads the database or a backup.

Encrypted with a key that is derived from the Repository's own secret, which is elsewhere.
"""

from __future__ import annotations

import base64
import json
import os
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from coldfusion_server.services.context import Context
from coldfusion_shared.errors import ConfigurationError

_PURPOSE = b"coldfusion webhooks, AES-256-GCM"
_KEY_BYTES, _NONCE_BYTES = 32, 12


def seal(ctx: Context, place: str, values: dict[str, Any]) -> str:
    """
    Return `values` encrypted, as text.

    Args:
        ctx: the service's surroundings.
        place: where it is kept; it cannot be opened anywhere else.
        values: what JSON has.
    """
    nonce = os.urandom(_NONCE_BYTES)
    plain = json.dumps(values).encode()
    return base64.b64encode(nonce + _cipher(ctx).encrypt(nonce, plain, place.encode())).decode()


def unseal(ctx: Context, place: str, sealed: str) -> dict[str, Any]:
    """Return what was sealed; raises `ConfigurationError` where the secret is another one now."""
    try:
        raw = base64.b64decode(sealed, validate=True)
        plain = _cipher(ctx).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], place.encode())
        found: dict[str, Any] = json.loads(plain)
    except (InvalidTag, ValueError):
        raise ConfigurationError(
            "It cannot be read any more: it was encrypted with another secret than the one in "
            "force.",
            hint="Put the former secret back (the setting secret, or secret.key in the data "
            "folder), or delete the webhook and make it anew.",
        ) from None
    return found


def _cipher(ctx: Context) -> AESGCM:
    derived = HKDF(hashes.SHA256(), _KEY_BYTES, salt=None, info=_PURPOSE).derive(ctx.secret)
    return AESGCM(derived)
