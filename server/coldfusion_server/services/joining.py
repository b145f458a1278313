"""Joining: the code of an invitation becomes a contributor's token."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributorRow, InvitationRow, TokenRow
from coldfusion_server.events import audit
from coldfusion_server.services.context import Context
from coldfusion_server.services.contributors import added, check_free, named
from coldfusion_server.services.invitations import CODE, check_invitable, locked, state_of
from coldfusion_server.services.tokens import digest, make_token, token_of
from coldfusion_shared.errors import InvalidRequest, InvitationRefused
from coldfusion_shared.schemas.invitations import InvitationState, Join, Joined
from coldfusion_shared.schemas.tokens import Role

_REFUSED = {
    InvitationState.USED: "The invitation was used before; each is good once.",
    InvitationState.EXPIRED: "The invitation has expired.",
    InvitationState.REVOKED: "The invitation was revoked.",
}


def join(ctx: Context, wanted: Join, key: str) -> Joined:
    """
    Make the token that an invitation is for, and its holder a contributor.

    The same code with the same `key` again gives the same token, so that an answer that was lost on
    its way costs nothing.

    Args:
        ctx: the service's surroundings.
        wanted: the code, and a name.
        key: anything that nobody else knows.

    Raises:
        InvitationRefused: the code is wrong, was used, has expired or was revoked; or somebody
            is blocked.
        InvalidRequest: there is no name, or another one than the invitation is for.
        NameTaken: somebody has the name.
    """
    with ctx.database.read() as session:
        # Before a transaction that others would wait for: most wrong codes end here.
        identity = _checked(session, wanted.code)
    secret = _secret(ctx, wanted.code, key)
    now = ctx.now()
    with ctx.database.write() as session:
        row = locked(session, identity)
        assert row is not None, "invitations are never deleted"
        if row.token is not None and _is_same(row.token, secret):
            return _told(row.token, secret)
        state = state_of(row, now)
        if state != InvitationState.OPEN:
            raise InvitationRefused(_REFUSED[state], hint="Ask whoever sent it for a new one.")
        _check_not_blocked(session, row)
        contributor = _contributor(ctx, session, row, wanted)
        life = row.lifetime_seconds
        expires_at = None if life is None else now + timedelta(seconds=life)
        role = Role(row.role)
        token, _ = make_token(session, contributor, role, row.models, now, expires_at, secret)
        row.token_id = token.id
        session.flush()
        name = contributor.name
        audit.note(session, now, name, "invitation.used", subject=row.id, token_made=token.id)
        return _told(token, secret)


def invitation_id_of(code: str) -> str | None:
    """Return the id that `code` names, whether or not there is one; null: it is no code."""
    match = CODE.fullmatch(code)
    return None if match is None else match[1]


def _checked(session: Session, code: str) -> str:
    """Return the id of the invitation whose code is `code`."""
    identity = invitation_id_of(code)
    query = select(InvitationRow).where(InvitationRow.id == identity)
    row = None if identity is None else session.scalar(query)
    # Digests of equal length in ASCII: compare_digest neither leaks nor raises.
    if row is None or not hmac.compare_digest(row.sha256, digest(code)):
        raise InvitationRefused(
            "There is no such invitation.", hint="Check that its code was copied whole."
        )
    return row.id


def _check_not_blocked(session: Session, row: InvitationRow) -> None:
    """Raise `InvitationRefused` if whoever has made it, or whom it is for, is blocked."""
    query = select(ContributorRow.id).where(
        ContributorRow.blocked_at.is_not(None),
        (ContributorRow.name == row.name)
        | (ContributorRow.id == (row.maker.contributor_id if row.maker else None)),
    )
    if session.scalar(query.limit(1)) is not None:
        raise InvitationRefused(
            "The invitation is not good any more.", hint="Ask the operator of this Repository."
        )


def _contributor(
    ctx: Context, session: Session, row: InvitationRow, wanted: Join
) -> ContributorRow:
    if row.name is None:
        if wanted.name is None:
            raise InvalidRequest(
                "This invitation leaves the name to you.", hint="Add it, such as: --name alice"
            )
        check_free(session, wanted.name)
        return added(session, wanted.name, ctx.now())
    if wanted.name not in (None, row.name):
        raise InvalidRequest(f"This invitation is for {row.name}.", hint="Leave the name out.")
    # Somebody may have come to that name since the invitation was made.
    check_invitable(session, row.name, Role(row.maker.role) if row.maker else None)
    return named(session, row.name, ctx.now())


def _secret(ctx: Context, code: str, key: str) -> str:
    """Return the secret of the token: nobody knows it who lacks the code, the key or ours."""
    message = f"join\n{code}\n{key}".encode()
    raw = hmac.new(ctx.secret, message, hashlib.sha256).digest()
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _is_same(row: TokenRow, secret: str) -> bool:
    same = hmac.compare_digest(row.sha256, digest(token_of(row.id, secret)))
    return same and row.revoked_at is None and row.contributor.blocked_at is None


def _told(row: TokenRow, secret: str) -> Joined:
    return Joined(
        token=token_of(row.id, secret),
        name=row.contributor.name,
        role=Role(row.role),
        models=row.models,
        expires_at=row.expires_at,
    )
