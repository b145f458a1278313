"""Browser sessions: a signed cookie that names a token's id, never the token."""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta

from coldfusion_server.services.context import Context

COOKIE = "coldfusion_session"
LIFETIME = timedelta(days=7)


def make_session(ctx: Context, token_id: str) -> str:
    """Return the cookie's value for the holder of the token of that id."""
    expires = int((ctx.now() + LIFETIME).timestamp())
    return f"{token_id}.{expires}.{_signature(ctx, token_id, str(expires))}"


def session_token_id(ctx: Context, cookie_header: str) -> str | None:
    """Return the token id of the session in a Cookie header; null if there is no valid one."""
    token_id, expires, signature = [*cookie_value(cookie_header, COOKIE).split("."), "", "", ""][:3]
    if not signature.isascii() or not expires.isdigit():
        return None
    if not hmac.compare_digest(_signature(ctx, token_id, expires), signature):
        return None
    return token_id if int(expires) > ctx.now().timestamp() else None


def cookie_value(cookie_header: str, wanted: str) -> str:
    """Return the cookie of that name, one of ours, as it was sent; empty: there is none."""
    # Not by http.cookies: until Python 3.11.10 a header full of backslashes keeps it busy for a
    # minute. Ours need no quotes.
    for cookie in cookie_header.split(";"):
        name, _, value = cookie.partition("=")
        if name.strip() == wanted:
            return value.strip()
    return ""


def _signature(ctx: Context, token_id: str, expires: str) -> str:
    message = f"session\n{token_id}\n{expires}".encode()
    return hmac.new(ctx.secret, message, hashlib.sha256).hexdigest()
