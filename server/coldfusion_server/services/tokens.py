"""
Tokens: shown once, stored as SHA-256, scoped by role and model, expiring, revocable.

What a token may is asked in one of three ways. `require` with a model's name: does the role hold
there? `require` without one: does it hold for what is no model's, or all models'? A token for some
models only never passes that one, so that whoever forgets the name refuses too much, not too
little. `require_anywhere`: does it hold for any model?
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributorRow, InvitationRow, ModelRow, TokenRow
from coldfusion_server.events import audit
from coldfusion_server.services.context import Context
from coldfusion_server.services.contributors import check_name, named
from coldfusion_shared.errors import (
    Forbidden,
    InvalidRequest,
    ModelNotFound,
    StateConflict,
    TokenExpired,
    TokenNotFound,
    TokenRevoked,
    Unauthenticated,
)
from coldfusion_shared.schemas.tokens import Role

# cf_<id>_<secret>: the prefix lets secret scanners find leaked ones.
_TOKEN = re.compile(r"cf_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")

_INCLUDES: dict[Role, frozenset[Role]] = {
    Role.READER: frozenset({Role.READER}),
    Role.CONTRIBUTOR: frozenset({Role.READER, Role.CONTRIBUTOR}),
    Role.EVALUATOR: frozenset({Role.READER, Role.EVALUATOR}),
    Role.MAINTAINER: frozenset({Role.READER, Role.CONTRIBUTOR, Role.EVALUATOR, Role.MAINTAINER}),
    Role.ADMIN: frozenset(Role),
}


@dataclass(frozen=True)
class Principal:
    """
    Who asks.

    Attributes:
        contributor_id: whose doings these are.
        name: the contributor's.
        role: what the token allows.
        token_id: which of the contributor's tokens it is.
        expires_at: when it ends; null: never.
        models: those that the role is for; null: all, and what is no model's.
    """

    contributor_id: int
    name: str
    role: Role
    token_id: str
    expires_at: datetime | None
    models: frozenset[str] | None = None

    def covers(self, model: str | None) -> bool:
        """Return whether the role is for `model`; null: for all, and what is no model's."""
        return self.models is None or model in self.models


def create_token(
    ctx: Context,
    name: str,
    role: Role,
    lifetime: timedelta | None = None,
    models: Sequence[str] | None = None,
) -> tuple[str, datetime | None]:
    """
    Make a token for the contributor called `name` and return it with its expiry.

    This is the only time that the token itself can be seen.

    Args:
        ctx: the service's surroundings.
        name: the contributor's, who is made if there was none.
        role: what it allows.
        lifetime: how long; null: for ever.
        models: names of those that it is for; null: all.

    Raises:
        InvalidRequest: nobody can be called so, or there can be no such token.
        ModelNotFound: there is no such model.
        StateConflict: the contributor is blocked.
    """
    check_name(name)
    check_scope(role, models)
    try:
        expires_at = None if lifetime is None else ctx.now() + lifetime
    except OverflowError:
        raise InvalidRequest("The token's lifetime is too long.") from None
    with ctx.database.write() as session:
        _check_models(session, models)
        contributor = named(session, name, ctx.now())
        row, token = make_token(session, contributor, role, models, ctx.now(), expires_at)
        _note_token(session, row, contributor)
        return token, expires_at


def create_first_token(ctx: Context, name: str) -> str | None:
    """Make an admin's token where there is none of anybody yet; of several processes, one does."""
    with ctx.database.alone() as session:
        if session.scalar(select(TokenRow.id).limit(1)) is not None:
            return None
        contributor = named(session, name, ctx.now())
        row, token = make_token(session, contributor, Role.ADMIN, None, ctx.now(), None)
        _note_token(session, row, contributor)
        return token


def make_token(
    session: Session,
    contributor: ContributorRow,
    role: Role,
    models: Sequence[str] | None,
    now: datetime,
    expires_at: datetime | None,
    secret: str | None = None,
) -> tuple[TokenRow, str]:
    """
    Make a token in the caller's transaction; return its row, and the token.

    Args:
        session: the transaction.
        contributor: whose it will be.
        role: what it allows.
        models: names of those that it is for; null: all.
        now: the time.
        expires_at: when it ends; null: never.
        secret: 43 letters of URL-safe base64, of 256 random bits; null: chosen here.

    Raises:
        StateConflict: the contributor is blocked.
    """
    check_not_blocked(contributor)
    token_id = secrets.token_hex(8)
    token = token_of(token_id, secret or secrets.token_urlsafe(32))
    row = TokenRow(
        id=token_id,
        contributor_id=contributor.id,
        role=role.value,
        models=None if models is None else sorted(set(models)),
        sha256=digest(token),
        created_at=now,
        expires_at=expires_at,
        revoked_at=None,
    )
    session.add(row)
    session.flush()
    return row, token


def check_not_blocked(contributor: ContributorRow) -> None:
    """Raise `StateConflict` if nothing is made for the contributor, who is blocked."""
    if contributor.blocked_at is not None:
        raise StateConflict(
            f"{contributor.name} is blocked since {contributor.blocked_at:%Y-%m-%d %H:%M} UTC.",
            hint="To let them in again, where the server runs: coldfusion-server contributor "
            f"unblock {contributor.name}",
        )


def _note_token(session: Session, row: TokenRow, contributor: ContributorRow) -> None:
    """Write into the audit log that the operator has made a token."""
    audit.note(
        session,
        row.created_at,
        audit.OPERATOR,
        "token.created",
        subject=row.id,
        name=contributor.name,
        role=row.role,
        models=row.models,
        expires_at=row.expires_at,
    )


def token_of(token_id: str, secret: str) -> str:
    """Return the token of that id and secret."""
    return f"cf_{token_id}_{secret}"


def digest(credential: str) -> str:
    """Return as what a token, or the code of an invitation, is kept."""
    # One round is enough: it has 128 random bits or more.
    return hashlib.sha256(credential.encode()).hexdigest()


def check_scope(role: Role, models: Sequence[str] | None) -> None:
    """Raise `InvalidRequest` unless `role` can be limited to `models`, null: to none."""
    if models is not None and not models:
        raise InvalidRequest("A token for no model is good for nothing.")
    if models is not None and role == Role.ADMIN:
        raise InvalidRequest(
            "An admin's token is for everything; it cannot be limited to models.",
            hint="The role maintainer can.",
        )


def built_in(ctx: Context, name: str, role: Role) -> Principal:
    """Return a part of the Repository itself, which acts as a contributor without a token."""
    with ctx.database.write() as session:
        row = named(session, name, ctx.now())
        return Principal(row.id, name, role, token_id="", expires_at=None)


def revoke_token(ctx: Context, name_or_id: str) -> int:
    """
    Revoke the token of that id, or all tokens of the contributor of that name.

    Invitations that were made with them and not used yet are good no more. Returns how many tokens
    were good until now; raises `TokenNotFound` if there never was one.
    """
    with ctx.database.write() as session:
        rows = session.scalars(
            select(TokenRow)
            .join(ContributorRow)
            .where((TokenRow.id == name_or_id) | (ContributorRow.name == name_or_id))
            .order_by(TokenRow.id)
            # Those of sign-ins that are past may be removed at this moment.
            .with_for_update(of=TokenRow)
        ).all()
        if not rows:
            raise TokenNotFound(
                f"There is no token {name_or_id!r}, nor a contributor of that name.",
                hint="Run: coldfusion-server token list",
            )
        live = [row for row in rows if row.revoked_at is None]
        for row in live:
            row.revoked_at = ctx.now()
        session.execute(
            update(InvitationRow)
            .where(
                InvitationRow.made_by.in_([row.id for row in rows]),
                InvitationRow.token_id.is_(None),
                InvitationRow.revoked_at.is_(None),
            )
            .values(revoked_at=ctx.now())
        )
        if live:
            ids = [row.id for row in live]
            audit.note(
                session, ctx.now(), audit.OPERATOR, "token.revoked", subject=name_or_id, tokens=ids
            )
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
        Unauthenticated: it is none of ours.
        TokenExpired, TokenRevoked: it was good once, or its holder is blocked.
    """
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise _wrong_token()
    with ctx.database.read() as session:
        row = session.get(TokenRow, match[1])
        # Digests of equal length in ASCII: compare_digest neither leaks nor raises.
        if row is None or not hmac.compare_digest(row.sha256, digest(token)):
            raise _wrong_token()
        return _principal(ctx, row)


def token_id_of(token: str) -> str | None:
    """Return the id that `token` names, whether or not there is one; null: it is no token."""
    match = _TOKEN.fullmatch(token)
    return None if match is None else match[1]


def principal_of(ctx: Context, token_id: str) -> Principal:
    """Return who holds the token of that id, for a browser session that was signed by us."""
    with ctx.database.read() as session:
        row = session.get(TokenRow, token_id)
        if row is None:
            raise _wrong_token()
        return _principal(ctx, row)


def signed_in(principal: Principal | None) -> Principal:
    """Return `principal`, whatever its role is; raises `Unauthenticated` where there is none."""
    if principal is None:
        raise Unauthenticated(
            "This needs a token.",
            hint="Log in with: coldfusion-client login URL, or send Authorization: Bearer TOKEN.",
        )
    return principal


def require(principal: Principal | None, role: Role, model: str | None = None) -> Principal:
    """
    Return `principal` if it may do what `role` may.

    Args:
        principal: who asks; null: a visitor.
        role: what it takes.
        model: where; null: with what is no model's, or with all models.

    Raises:
        Unauthenticated: there is no token.
        Forbidden: it does not allow this.
    """
    who = require_anywhere(principal, role)
    if not who.covers(model):
        names = ", ".join(sorted(who.models or ()))
        raise Forbidden(
            f"This needs a token for {'all models' if model is None else model[:100]}; yours is "
            f"for {names}.",
            hint="Ask the operator of this Repository for one.",
        )
    return who


def require_anywhere(principal: Principal | None, role: Role) -> Principal:
    """Return `principal` if it may do what `role` may, be it with one model; else raise."""
    who = signed_in(principal)
    if role not in _INCLUDES[who.role]:
        raise Forbidden(
            f"This needs a token of role {role}; yours is of role {who.role}.",
            hint="Ask the operator of this Repository for one.",
        )
    return who


def may(principal: Principal, role: Role, model: str | None = None) -> bool:
    """Return whether `principal` may do what `role` may: with `model`, or as `require` has it."""
    return role in _INCLUDES[principal.role] and principal.covers(model)


def includes(role: Role, other: Role) -> bool:
    """Return whether `role` may all that `other` may."""
    return other in _INCLUDES[role]


def _principal(ctx: Context, row: TokenRow) -> Principal:
    if row.contributor.blocked_at is not None:
        raise TokenRevoked(
            "The holder of this token is blocked here.", hint="Ask the operator of this Repository."
        )
    if row.revoked_at is not None:
        raise TokenRevoked(
            "The token was revoked.",
            hint="Ask the operator of this Repository for a new one, then log in again.",
        )
    if row.expires_at is not None and row.expires_at <= ctx.now():
        raise TokenExpired(
            f"The token expired at {row.expires_at:%Y-%m-%d %H:%M} UTC.",
            hint="Ask the operator of this Repository for a new one, then log in again.",
        )
    return Principal(
        contributor_id=row.contributor_id,
        name=row.contributor.name,
        role=Role(row.role),
        token_id=row.id,
        expires_at=row.expires_at,
        models=None if row.models is None else frozenset(row.models),
    )


def _wrong_token() -> Unauthenticated:
    return Unauthenticated(
        "The token is not valid.",
        hint="Check that it was copied whole, and that it is one of this Repository.",
    )


def _check_models(session: Session, models: Sequence[str] | None) -> None:
    for name in models or ():
        if session.scalar(select(ModelRow.id).where(ModelRow.name == name)) is None:
            raise ModelNotFound(
                f"There is no model {name[:100]!r} here.",
                hint="See: coldfusion-server model list",
            )
