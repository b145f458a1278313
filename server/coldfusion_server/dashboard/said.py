"""
What came of a decision, said once on the page that follows it.

It travels in a cookie that we have signed for one session and one page, never in an address: what
a page says in our name nobody else can have put there.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import timedelta

from fastapi import Request
from starlette.responses import Response

from coldfusion_server.api.session import cookie_value, session_token_id
from coldfusion_server.services.context import Context

COOKIE = "coldfusion_said"
LIFETIME = timedelta(minutes=1)
# Browsers keep cookies of 4096 bytes.
LONGEST = 800


def say(
    ctx: Context, response: Response, token_id: str, path: str, sentence: str, *, secure: bool
) -> None:
    """Let the page at `path` begin with `sentence`, in the session of the token of that id."""
    text = sentence if len(sentence) <= LONGEST else f"{sentence[: LONGEST - 1]}…"
    expires = int((ctx.now() + LIFETIME).timestamp())
    content = f"{urlsafe_b64encode(text.encode()).decode().rstrip('=')}.{expires}"
    response.set_cookie(
        COOKIE,
        f"{content}.{_signature(ctx, token_id, path, content)}",
        max_age=int(LIFETIME.total_seconds()),
        path=path,
        httponly=True,
        samesite="strict",
        secure=secure,
    )


def heard(request: Request) -> str | None:
    """Return what is to be said on the page that is asked for; null: nothing."""
    ctx: Context = request.app.state.context
    cookies = request.headers.get("cookie", "")
    token_id = session_token_id(ctx, cookies)
    content, _, signature = cookie_value(cookies, COOKIE).rpartition(".")
    if token_id is None or not signature.isascii():
        return None
    if not hmac.compare_digest(_signature(ctx, token_id, request.url.path, content), signature):
        return None
    text, _, expires = content.partition(".")
    if int(expires) <= ctx.now().timestamp():
        return None
    return urlsafe_b64decode(text + "==").decode()


def forget(request: Request, response: Response) -> None:
    """Take the cookie back: what it says was said."""
    response.delete_cookie(COOKIE, path=request.url.path, httponly=True, samesite="strict")


def _signature(ctx: Context, token_id: str, path: str, content: str) -> str:
    message = f"said\n{token_id}\n{path}\n{content}".encode()
    return hmac.new(ctx.secret, message, hashlib.sha256).hexdigest()
