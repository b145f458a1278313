"""
Tokens by which hf_xet sends the bytes of files: short-lived, and good for nothing else.

One is made for the holder of a contributor's token, for one model and revision, and ends with that
token, whether it expires, is revoked, or its holder is blocked. Nothing is kept of it: it is
signed, and what it stands on is looked up each time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from coldfusion_server.services.context import Context
from coldfusion_server.services.tokens import Principal, principal_of, require
from coldfusion_shared.errors import TokenExpired, Unauthenticated
from coldfusion_shared.schemas.tokens import Role

# Clients renew it by themselves.
LIFETIME = timedelta(hours=1)
PREFIX = "cfx_"
MOST_LETTERS = 2000


@dataclass(frozen=True)
class Ticket:
    """
    What one of these tokens allows: to send xorbs, and files made of them.

    Attributes:
        who: whose doings these are.
        model: which model the files are for, by name.
        revision: which of its revisions, as it was asked for.
    """

    who: Principal
    model: str
    revision: str


def make(
    ctx: Context, principal: Principal | None, model: str, revision: str
) -> tuple[str, datetime]:
    """
    Return a token for who may contribute to `model`, and when it ends.

    Raises:
        Unauthenticated, Forbidden: `principal` may not.
    """
    who = require(principal, Role.CONTRIBUTOR, model)
    ends = ctx.now() + LIFETIME
    said = json.dumps([who.token_id, model, revision[:200], int(ends.timestamp())])
    text = base64.urlsafe_b64encode(said.encode()).decode().rstrip("=")
    return f"{PREFIX}{text}.{_signature(ctx, text)}", ends


def check(ctx: Context, token: str) -> Ticket:
    """
    Return what `token` allows.

    Raises:
        Unauthenticated: we have not made it.
        TokenExpired, TokenRevoked: it is good no more, or the one that it was made for.
        Forbidden: that one may not contribute there any more.
    """
    text, _, signature = token.removeprefix(PREFIX).partition(".")
    if len(token) > MOST_LETTERS or not token.isascii() or not token.startswith(PREFIX):
        raise _wrong()
    if not hmac.compare_digest(_signature(ctx, text), signature):
        raise _wrong()
    token_id, model, revision, ends = _said(text)
    if ends <= ctx.now().timestamp():
        raise TokenExpired(
            "The token of this upload has expired.", hint="Run the same command again."
        )
    who = require(principal_of(ctx, token_id), Role.CONTRIBUTOR, model)
    return Ticket(who, model, revision)


def _said(text: str) -> tuple[str, str, str, int]:
    try:
        token_id, model, revision, ends = json.loads(
            base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        )
    except (binascii.Error, ValueError):
        raise _wrong() from None
    return token_id, model, revision, ends


def _wrong() -> Unauthenticated:
    return Unauthenticated(
        "This is no token for uploads.", hint="Run the same command again; it asks for a new one."
    )


def _signature(ctx: Context, text: str) -> str:
    return hmac.new(ctx.secret, f"xet\n{text}".encode(), hashlib.sha256).hexdigest()
