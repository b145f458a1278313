"""
Signing in: what a provider says of somebody becomes a token like any other, of limited life.

A person is the provider's issuer and subject, and for ever the same contributor. Role and name
follow from what the provider says: the name the first time, the role every time. Where it says less
than before, the tokens of earlier sign-ins end.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributorRow, IdentityRow, SignInRow, TokenRow
from coldfusion_server.events import audit
from coldfusion_server.oidc.people import Person, person_of
from coldfusion_server.services.context import Context
from coldfusion_server.services.contributors import added, free_name
from coldfusion_server.services.tokens import digest, includes, make_token, token_of
from coldfusion_shared.errors import NotFound, SignInRefused
from coldfusion_shared.schemas.sign_in import SignedIn, SignIn, SignInOffer
from coldfusion_shared.schemas.tokens import Role

if TYPE_CHECKING:
    from coldfusion_server.oidc.provider import Provider

log = structlog.get_logger(__name__)


def provider_of(ctx: Context) -> Provider:
    """Return the provider by which people sign in; raises `NotFound` where there is none."""
    if ctx.provider is None:
        raise NotFound(
            "This Repository has no sign-in by a provider.",
            hint="Log in with a token: coldfusion-client login URL",
        )
    return ctx.provider


def offer(ctx: Context) -> SignInOffer:
    """Return how programs sign people in; raises `NotFound`, `ProviderUnavailable`."""
    return provider_of(ctx).offer()


def sign_in(ctx: Context, wanted: SignIn, key: str) -> SignedIn:
    """
    Make a token for whom an id token is about, which came to a program by the device grant.

    The same id token with the same `key` again gives the same token, so that an answer that was
    lost on its way costs nothing.

    Args:
        ctx: the service's surroundings.
        wanted: the id token.
        key: anything that nobody else knows.

    Raises:
        NotFound: nobody signs in this way here.
        ProviderUnavailable: the provider's keys could not be asked for.
        SignInRefused: the id token proves nothing, was used before, or the person may not come in.
    """
    provider = provider_of(ctx)
    client_id = provider.device_client_id
    claims = provider.verify(wanted.id_token, client_id, None, ctx.now())
    person = person_of(claims, provider.options.rules)
    secret = _secret(ctx, wanted.id_token, key)
    life = timedelta(hours=ctx.settings.oidc_token_hours)
    return _told(_admit(ctx, person, wanted.id_token, life, secret), secret)


def begin_session(ctx: Context, id_token: str, nonce: str) -> str:
    """
    Make a token that nobody knows, for the session of a browser; return its id.

    Args:
        ctx: the service's surroundings.
        id_token: for which the provider took the browser's code.
        nonce: what we had asked to be in it.

    Raises:
        ProviderUnavailable, SignInRefused: as for `sign_in`.
    """
    provider = provider_of(ctx)
    claims = provider.verify(id_token, provider.options.client_id, nonce, ctx.now())
    person = person_of(claims, provider.options.rules)
    life = timedelta(hours=ctx.settings.oidc_session_hours)
    return _admit(ctx, person, id_token, life, None).id


def end_session(ctx: Context, token_id: str) -> None:
    """Let a session's token be good no more; one that a person knows is not a session's."""
    with ctx.database.write() as session:
        query = select(TokenRow).join(SignInRow, SignInRow.token_id == TokenRow.id)
        query = query.where(TokenRow.id == token_id, SignInRow.browser)
        # Locked: what is past may be removed at this moment.
        row = session.scalar(query.with_for_update(of=TokenRow))
        if row is not None and row.revoked_at is None:
            row.revoked_at = ctx.now()
            name = row.contributor.name
            audit.note(session, ctx.now(), name, "sign_in.ended", subject=token_id)


def _admit(
    ctx: Context, person: Person, id_token: str, life: timedelta, secret: str | None
) -> TokenRow:
    """Return the row of a person's new token; without a `secret` it is a browser's session."""
    # One at a time: neither a name nor an id token is taken twice.
    with ctx.database.alone() as session:
        identity = _known(session, person)
        if identity is not None:
            _end_beyond(ctx, session, identity, person.role)
        blocked = identity is not None and identity.contributor.blocked_at is not None
        used = session.get(SignInRow, digest(id_token))
        if not blocked and used is not None and _is_same(used, secret):
            session.refresh(used.token, ["contributor"])
            return used.token
        if not blocked and used is None and person.role is not None:
            identity = identity or _newcomer(ctx, session, person)
            return _token(ctx, session, identity, person.role, id_token, life, secret)
    if blocked:
        log.info("sign-in refused", issuer=person.issuer, subject=person.subject, why="is blocked")
        raise SignInRefused("You cannot sign in here.", hint="Ask the operator of this Repository.")
    if person.role is None:
        log.info("sign-in refused", issuer=person.issuer, subject=person.subject)
        raise SignInRefused(person.why_not, hint="Ask the operator of this Repository.")
    raise SignInRefused("This sign-in was used before; each is good once.", hint="Sign in again.")


def _known(session: Session, person: Person) -> IdentityRow | None:
    return session.scalar(
        select(IdentityRow).where(
            IdentityRow.issuer == person.issuer, IdentityRow.subject == person.subject
        )
    )


def _newcomer(ctx: Context, session: Session, person: Person) -> IdentityRow:
    """Make somebody a contributor, under a name that was nobody's."""
    now = ctx.now()
    contributor: ContributorRow = added(session, free_name(session, person.name), now)
    row = IdentityRow(
        issuer=person.issuer, subject=person.subject, contributor_id=contributor.id, created_at=now
    )
    session.add(row)
    session.flush()
    audit.note(
        session,
        now,
        contributor.name,
        "identity.created",
        subject=contributor.name,
        issuer=person.issuer,
        provider_subject=person.subject,
    )
    return row


def _token(
    ctx: Context,
    session: Session,
    identity: IdentityRow,
    role: Role,
    id_token: str,
    life: timedelta,
    secret: str | None,
) -> TokenRow:
    now = ctx.now()
    row, _ = make_token(session, identity.contributor, role, None, now, now + life, secret)
    session.add(
        SignInRow(
            id_token_sha256=digest(id_token),
            identity_id=identity.id,
            token_id=row.id,
            browser=secret is None,
        )
    )
    session.flush()
    session.refresh(row, ["contributor"])
    audit.note(
        session,
        now,
        row.contributor.name,
        "sign_in.accepted",
        subject=row.id,
        role=role.value,
        browser=secret is None,
        expires_at=row.expires_at,
    )
    return row


def _end_beyond(ctx: Context, session: Session, identity: IdentityRow, role: Role | None) -> None:
    """Revoke the person's tokens that allow more than `role`, as the provider says it today."""
    now = ctx.now()
    rows = session.scalars(
        select(TokenRow)
        .join(SignInRow, SignInRow.token_id == TokenRow.id)
        .where(
            SignInRow.identity_id == identity.id,
            TokenRow.revoked_at.is_(None),
            TokenRow.expires_at > now,
        )
    )
    ended = [row for row in rows if role is None or not includes(role, Role(row.role))]
    for row in ended:
        row.revoked_at = now
    if ended:
        name = identity.contributor.name
        ids = [row.id for row in ended]
        audit.note(session, now, name, "sign_in.less", subject=name, role=role, tokens=ids)


def _secret(ctx: Context, id_token: str, key: str) -> str:
    """Return the secret of the token: nobody knows it who lacks the id token, the key or ours."""
    message = f"sign-in\n{id_token}\n{key}".encode()
    raw = hmac.new(ctx.secret, message, hashlib.sha256).digest()
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _is_same(used: SignInRow, secret: str | None) -> bool:
    if secret is None or used.token.revoked_at is not None:
        return False
    return hmac.compare_digest(used.token.sha256, digest(token_of(used.token_id, secret)))


def _told(row: TokenRow, secret: str) -> SignedIn:
    assert row.expires_at is not None, "whoever signs in does so for a time"
    return SignedIn(
        token=token_of(row.id, secret),
        name=row.contributor.name,
        role=Role(row.role),
        expires_at=row.expires_at,
    )
