"""
A sign-in that has begun in a browser: a cookie that the provider's answer has to fit.

The cookie holds a random number, an end and where to go then, signed. What is sent along to the
provider is derived from the number by our own secret, so that the cookie tells none of it, and any
replica can go on.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import timedelta

from coldfusion_server.oidc.request import Request
from coldfusion_server.services.context import Context
from coldfusion_shared.errors import SignInRefused

LIFETIME = timedelta(minutes=10)
CALLBACK = "/login/oidc/callback"
LONGEST_TARGET = 500
_COOKIE = "coldfusion_sign_in"


@dataclass(frozen=True)
class Begun:
    """
    One sign-in.

    Attributes:
        number: random; in the cookie alone.
        target: a path of ours, where to go when it has ended.
    """

    number: str
    target: str


def cookie_name(is_https: bool) -> str:
    """Return the cookie's name; by https one that no neighbouring host can set."""
    return f"__Host-{_COOKIE}" if is_https else _COOKIE


def begin(target: str) -> Begun:
    """Return a new one that leads to `target`, or to our first page where that is too long."""
    return Begun(secrets.token_urlsafe(32), target if len(target) <= LONGEST_TARGET else "/")


def cookie_of(ctx: Context, begun: Begun) -> str:
    """Return the value of its cookie."""
    expires = int((ctx.now() + LIFETIME).timestamp())
    target = urlsafe_b64encode(begun.target.encode()).decode().rstrip("=")
    content = f"{begun.number}.{expires}.{target}"
    return f"{content}.{_derived(ctx, 'cookie', content)}"


def read(ctx: Context, value: str, state: str) -> Begun:
    """
    Return the sign-in that the browser's cookie is of.

    Args:
        ctx: the service's surroundings.
        value: the cookie's; empty: there is none.
        state: what came back from the provider.

    Raises:
        SignInRefused: there is none, it took too long, or the answer is that to another one.
    """
    content, _, signature = value.rpartition(".")
    if not signature.isascii() or not hmac.compare_digest(
        _derived(ctx, "cookie", content), signature
    ):
        raise SignInRefused("No sign-in was begun in this browser.", hint="Begin again here.")
    number, expires, target = content.split(".")
    if int(expires) <= ctx.now().timestamp():
        raise SignInRefused("The sign-in took too long.", hint="Begin again here.")
    begun = Begun(number, urlsafe_b64decode(target + "==").decode())
    if not state.isascii() or not hmac.compare_digest(_derived(ctx, "state", number), state):
        raise SignInRefused(
            "The answer belongs to another sign-in than the one begun last.",
            hint="Begin again here, in one window.",
        )
    return begun


def request_of(ctx: Context, begun: Begun, url: str) -> Request:
    """Return what the provider is sent, where we are reached at `url`."""
    return Request(
        redirect_uri=url + CALLBACK,
        state=_derived(ctx, "state", begun.number),
        nonce=_derived(ctx, "nonce", begun.number),
        verifier=_derived(ctx, "verifier", begun.number),
    )


def _derived(ctx: Context, what: str, content: str) -> str:
    """Return 64 digits that nobody can make who lacks our secret."""
    message = f"sign-in\n{what}\n{content}".encode()
    return hmac.new(ctx.secret, message, hashlib.sha256).hexdigest()
