"""Browser sessions: a signed cookie that names a token's id, never the token."""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta
from http.cookies import CookieError, SimpleCookie

from coldfusion_server.services.context import Context

COOKIE = "coldfusion_session"
LIFETIME = timedelta(days=7)


def make_session(ctx: Context, token_id: str) -> str:
    """Return the cookie's value for the holder of the token of that id."""
    expires = int((ctx.now() + LIFETIME).timestamp())
    return f"{token_id}.{expires}.{_signature(ctx, token_id, str(expires))}"


def session_token_id(ctx: Context, cookie_header: str) -> str | None:
    """Return the token id of the session in a Cookie header; null if there is no valid one."""
    try:
        cookie = SimpleCookie(cookie_header).get(COOKIE)
    except CookieError:
        return None
    token_id, expires, signature = [*(cookie.value if cookie else "").split("."), "", "", ""][:3]
    if not signature.isascii() or not expires.isdigit():
        return None
    if not hmac.compare_digest(_signature(ctx, token_id, expires), signature):
        return None
    return token_id if int(expires) > ctx.now().timestamp() else None


def _signature(ctx: Context, token_id: str, expires: str) -> str:
    message = f"session\n{token_id}\n{expires}".encode()
    return hmac.new(ctx.secret, message, hashlib.sha256).hexdigest()
