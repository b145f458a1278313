"""Tokens: shown once, stored as SHA-256, scoped by role, expiring, revocable."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributorRow, TokenRow
from coldfusion_server.services.context import Context
from coldfusion_shared.errors import (
    Forbidden,
    InvalidRequest,
    TokenExpired,
    TokenNotFound,
    Unauthenticated,
)
from coldfusion_shared.schemas.tokens import Role

# cf_<id>_<secret>: the prefix lets secret scanners find leaked ones.
_TOKEN = re.compile(r"cf_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_])?")

_INCLUDES: dict[Role, frozenset[Role]] = {
    Role.READER: frozenset({Role.READER}),
    Role.CONTRIBUTOR: frozenset({Role.READER, Role.CONTRIBUTOR}),
    Role.EVALUATOR: frozenset({Role.READER, Role.EVALUATOR}),
    Role.MAINTAINER: frozenset({Role.READER, Role.CONTRIBUTOR, Role.EVALUATOR, Role.MAINTAINER}),
    Role.ADMIN: frozenset(Role),
}


@dataclass(frozen=True)
class Principal:
    """Who asks."""

    contributor_id: int
    name: str
    role: Role
    token_id: str
    expires_at: datetime | None


def create_token(
    ctx: Context, name: str, role: Role, lifetime: timedelta | None = None
) -> tuple[str, datetime | None]:
    """
    Make a token for the contributor called `name` and return it with its expiry.

    This is the only time that the token itself can be seen.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name[:100]!r} cannot be a contributor's name.",
            hint="Use letters, digits, '.', '_' and '-', 100 characters at most.",
        )
    try:
        expires_at = None if lifetime is None else ctx.now() + lifetime
    except OverflowError:
        raise InvalidRequest("The token's lifetime is too long.") from None
    with ctx.database.write() as session:
        return _new_token(session, name, role, ctx.now(), expires_at), expires_at


def create_first_token(ctx: Context, name: str) -> str | None:
    """Make an admin's token where there is none of anybody yet; of several processes, one does."""
    with ctx.database.alone() as session:
        if session.scalar(select(TokenRow.id).limit(1)) is not None:
            return None
        return _new_token(session, name, Role.ADMIN, ctx.now(), None)


def built_in(ctx: Context, name: str, role: Role) -> Principal:
    """Return a part of the Repository itself, which acts as a contributor without a token."""
    with ctx.database.write() as session:
        row = _contributor(session, name, ctx.now())
        return Principal(row.id, name, role, token_id="", expires_at=None)


def revoke_token(ctx: Context, name_or_id: str) -> int:
    """
    Revoke the token of that id, or all tokens of the contributor of that name.

    Returns how many were good until now; raises `TokenNotFound` if there never was one.
    """
    with ctx.database.write() as session:
        rows = session.scalars(
            select(TokenRow)
            .join(ContributorRow)
            .where((TokenRow.id == name_or_id) | (ContributorRow.name == name_or_id))
        ).all()
        if not rows:
            raise TokenNotFound(
                f"There is no token {name_or_id!r}, nor a contributor of that name.",
                hint="Run: coldfusion-server token list",
            )
        live = [row for row in rows if row.revoked_at is None]
        for row in live:
            row.revoked_at = ctx.now()
        return len(live)


def list_tokens(ctx: Context) -> list[TokenRow]:
    """Return all tokens, the newest first, with their contributors."""
    with ctx.database.write() as session:
        rows = session.scalars(select(TokenRow).order_by(TokenRow.created_at.desc())).all()
        for row in rows:
            session.refresh(row.contributor)
        return list(rows)


def authenticate(ctx: Context, token: str) -> Principal:
    """
    Return who holds `token`.

    Raises:
        Unauthenticated: it is none of ours, or it was revoked.
        TokenExpired: it was good once.
    """
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise _wrong_token()
    with ctx.database.read() as session:
        row = session.get(TokenRow, match[1])
        # Digests of equal length in ASCII: compare_digest neither leaks nor raises.
        if row is None or not hmac.compare_digest(row.sha256, _digest(token)):
            raise _wrong_token()
        return _principal(ctx, row)


def principal_of(ctx: Context, token_id: str) -> Principal:
    """Return who holds the token of that id, for a browser session that was signed by us."""
    with ctx.database.read() as session:
        row = session.get(TokenRow, token_id)
        if row is None:
            raise _wrong_token()
        return _principal(ctx, row)


def require(principal: Principal | None, role: Role) -> Principal:
    """Return `principal` if it may do what `role` may; raises `Unauthenticated`, `Forbidden`."""
    if principal is None:
        raise Unauthenticated(
            "This needs a token.",
            hint="Log in with: coldfusion-client login URL, or send Authorization: Bearer TOKEN.",
        )
    if role not in _INCLUDES[principal.role]:
        raise Forbidden(
            f"This needs a token of role {role}; yours is of role {principal.role}.",
            hint="Ask the operator of this Repository for one.",
        )
    return principal


def _principal(ctx: Context, row: TokenRow) -> Principal:
    if row.revoked_at is not None:
        raise _wrong_token()
    if row.expires_at is not None and row.expires_at <= ctx.now():
        raise TokenExpired(
            f"The token expired at {row.expires_at:%Y-%m-%d %H:%M} UTC.",
            hint="Ask the operator of this Repository for a new one, then log in again.",
        )
    return Principal(
        row.contributor_id, row.contributor.name, Role(row.role), row.id, row.expires_at
    )


def _wrong_token() -> Unauthenticated:
    return Unauthenticated(
        "The token is not valid.",
        hint="Check that it was copied whole and not revoked; log in again with a new one.",
    )


def _new_token(
    session: Session, name: str, role: Role, now: datetime, expires_at: datetime | None
) -> str:
    token_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    token = f"cf_{token_id}_{secret}"
    session.add(
        TokenRow(
            id=token_id,
            contributor_id=_contributor(session, name, now).id,
            role=role.value,
            sha256=_digest(token),
            created_at=now,
            expires_at=expires_at,
            revoked_at=None,
        )
    )
    return token


def _contributor(session: Session, name: str, now: datetime) -> ContributorRow:
    query = select(ContributorRow).where(ContributorRow.name == name)
    row = session.scalar(query)
    if row is not None:
        return row
    row = ContributorRow(name=name, created_at=now)
    try:
        with session.begin_nested():
            session.add(row)
            session.flush()
    except IntegrityError:
        return session.scalars(query).one()  # Another process was first.
    return row


def _digest(token: str) -> str:
    # One round is enough: the secret has 256 random bits.
    return hashlib.sha256(token.encode()).hexdigest()
