"""
Accounts at the provider: as which contributor they sign in.

Whoever was a contributor by token, and then signs in, is somebody new, since nothing proves that
the two are one. An operator who knows it joins them. The account has been proven by a sign-in, so
that no mistyped id gives one person's name to another.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributorRow, IdentityRow, SignInRow, TokenRow
from coldfusion_server.events import audit
from coldfusion_server.services.context import Context
from coldfusion_server.services.contributors import existing
from coldfusion_server.services.tokens import Principal, check_not_blocked, require
from coldfusion_shared.errors import InvalidRequest, StateConflict
from coldfusion_shared.schemas.tokens import Role


def join_accounts(ctx: Context, name: str, signed_in: str, principal: Principal | None) -> int:
    """
    Let accounts that have signed in as one contributor sign in as another from now on.

    What they have signed in for so far ends. What the one has contributed stays theirs.

    Args:
        ctx: the service's surroundings.
        name: as whom they sign in from now on.
        signed_in: as whom they have so far.
        principal: who decides it.

    Returns:
        How many tokens and sessions it has ended.

    Raises:
        Forbidden: the caller is no admin.
        NotFound: there is no such contributor.
        InvalidRequest: both names are the same.
        StateConflict: nobody has signed in so, or one of the two is blocked.
    """
    who = require(principal, Role.ADMIN)
    if name == signed_in:
        raise InvalidRequest("Both names are the same.", hint="Name two contributors.")
    # Nobody signs in meanwhile.
    with ctx.database.alone() as session:
        target, source = existing(session, name), existing(session, signed_in)
        for row in (target, source):
            check_not_blocked(row)
        identities = _identities(session, source)
        ended = _end(ctx, session, identities)
        for identity in identities:
            identity.contributor_id = target.id
        audit.note(
            session,
            ctx.now(),
            who,
            "identity.joined",
            subject=target.name,
            before=source.name,
            accounts=[[one.issuer, one.subject] for one in identities],
            tokens=[row.id for row in ended],
        )
        return len(ended)


def _identities(session: Session, source: ContributorRow) -> list[IdentityRow]:
    query = select(IdentityRow).where(IdentityRow.contributor_id == source.id)
    found = list(session.scalars(query.order_by(IdentityRow.id)))
    if not found:
        raise StateConflict(
            f"Nobody signs in as {source.name}.",
            hint="Let the person sign in first; the account then has a name here, such as alice-2.",
        )
    return found


def _end(ctx: Context, session: Session, identities: list[IdentityRow]) -> list[TokenRow]:
    """Revoke the tokens of all sign-ins so far: they are of the contributor from before."""
    now = ctx.now()
    query = (
        select(TokenRow)
        .join(SignInRow, SignInRow.token_id == TokenRow.id)
        .where(
            SignInRow.identity_id.in_([one.id for one in identities]),
            TokenRow.revoked_at.is_(None),
            TokenRow.expires_at > now,
        )
        .order_by(TokenRow.id)
        .with_for_update(of=TokenRow)
    )
    rows = list(session.scalars(query))
    for row in rows:
        row.revoked_at = now
    return rows
