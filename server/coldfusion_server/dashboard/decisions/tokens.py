"""
Of each of our forms a number that belongs to the session which it was shown in.

Another site can make a browser post a form here, but cannot read a page of ours to learn it.
"""

from __future__ import annotations

import hashlib
import hmac

from coldfusion_server.services.context import Context
from coldfusion_shared.errors import Forbidden


def token_of(ctx: Context, session: str) -> str:
    """Return it for the session of the token of that id."""
    return hmac.new(ctx.secret, f"decide\n{session}".encode(), hashlib.sha256).hexdigest()


def check(ctx: Context, session: str, given: str) -> None:
    """Raise `Forbidden` unless `given` is that of the session."""
    if not given.isascii() or not hmac.compare_digest(token_of(ctx, session), given):
        raise Forbidden(
            "This form belongs to another session than yours.",
            hint="Go back to the page that it is about, load it anew, and decide there.",
        )
