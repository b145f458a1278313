"""
Invitations: codes that make somebody a contributor, once.

A maintainer may invite to what is his, below his own role; only admins invite maintainers, or
somebody who is a contributor already, and nobody an admin.
"""

from __future__ import annotations

import re
import secrets
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributorRow, InvitationRow, TokenRow
from coldfusion_server.events import audit
from coldfusion_server.services import paging
from coldfusion_server.services.context import Context
from coldfusion_server.services.contributors import check_free, check_name
from coldfusion_server.services.lookup import find_model, searchable
from coldfusion_server.services.tokens import (
    Principal,
    check_not_blocked,
    check_scope,
    digest,
    may,
    require,
    require_anywhere,
)
from coldfusion_shared.errors import Forbidden, InvitationNotFound, StateConflict
from coldfusion_shared.schemas.common import Page
from coldfusion_shared.schemas.invitations import (
    Invitation,
    InvitationRequest,
    InvitationState,
    Invited,
)
from coldfusion_shared.schemas.tokens import Role

# cfi_<id>_<secret>, for secret scanners as tokens are. 128 bits: nobody guesses one in its time.
CODE = re.compile(r"cfi_([0-9a-f]{16})_[A-Za-z0-9_-]{22}")


def invite(ctx: Context, wanted: InvitationRequest, principal: Principal | None) -> Invited:
    """
    Make an invitation. This is the only time that its code can be seen.

    Raises:
        Forbidden: the caller may not give such a token.
        ModelNotFound: there is no such model.
        InvalidRequest: there can be no such token.
        NameTaken: there is a contributor of that name.
        StateConflict: that contributor is blocked.
    """
    who = _may_invite(wanted, principal)
    check_scope(wanted.role, wanted.models)
    identity = secrets.token_hex(8)
    code = f"cfi_{identity}_{secrets.token_urlsafe(16)}"
    now = ctx.now()
    with ctx.database.write() as session:
        for name in wanted.models or ():
            find_model(session, name, who)
        if wanted.name is not None:
            check_invitable(session, wanted.name, who.role)
            for invited in session.scalars(
                select(ContributorRow).where(ContributorRow.name == wanted.name)
            ):
                check_not_blocked(invited)
        row = InvitationRow(
            id=identity,
            sha256=digest(code),
            name=wanted.name,
            role=wanted.role.value,
            models=None if wanted.models is None else sorted(set(wanted.models)),
            lifetime_seconds=wanted.token_seconds,
            # Whoever is at the data folder is the operator, and has no token.
            made_by=who.token_id or None,
            created_at=now,
            expires_at=now + timedelta(seconds=wanted.valid_seconds),
        )
        session.add(row)
        session.flush()
        session.refresh(row)
        data = wanted.model_dump(mode="json")
        audit.note(session, now, who, "invitation.created", subject=identity, **data)
        return Invited(invitation=to_schema(row, now), code=code)


def list_invitations(
    ctx: Context, principal: Principal | None, window: paging.Window
) -> Page[Invitation]:
    """Return all invitations, newest first; to whom some models are, those that he has made."""
    who = require_anywhere(principal, Role.MAINTAINER)
    query = select(InvitationRow)
    if who.models is not None:
        query = query.where(InvitationRow.maker.has(TokenRow.contributor_id == who.contributor_id))
    now = ctx.now()
    with ctx.database.read() as session:
        return paging.page(
            session, query, InvitationRow.number, window, lambda row: to_schema(row, now)
        )


def revoke_invitation(ctx: Context, identity: str, principal: Principal | None) -> Invitation:
    """
    Let the code of an invitation be good no more; harmless to repeat.

    Raises:
        InvitationNotFound: there is none of that id, or it is none of the caller's business.
        StateConflict: somebody has joined with it.
    """
    who = require_anywhere(principal, Role.MAINTAINER)
    with ctx.database.write() as session:
        row = locked(session, identity)
        if row is None or not _is_business_of(row, who):
            raise InvitationNotFound(
                f"There is no invitation {identity[:40]!r}.",
                hint="See them with: coldfusion-server invite list",
            )
        if row.token is not None:
            raise StateConflict(
                f"{row.token.contributor.name} has joined with this invitation.",
                hint=f"Revoke the token: coldfusion-server token revoke {row.token.id}",
            )
        if row.revoked_at is None:
            row.revoked_at = ctx.now()
            audit.note(session, ctx.now(), who, "invitation.revoked", subject=row.id)
        return to_schema(row, ctx.now())


def locked(session: Session, identity: str) -> InvitationRow | None:
    """Return the row of an invitation, locked; null if there is none."""
    query = select(InvitationRow).where(InvitationRow.id == searchable(identity))
    return session.scalar(query.with_for_update(of=InvitationRow))


def check_invitable(session: Session, name: str, inviter: Role | None) -> None:
    """
    Check that somebody may be invited under `name`.

    Args:
        session: where to read.
        name: the contributor's.
        inviter: the role of who invites; null: the operator's.

    Raises:
        NameTaken: somebody has the name, and who invites may not speak for others.
        InvalidRequest: nobody can be called so.
    """
    if inviter in (None, Role.ADMIN):
        check_name(name)
    else:
        check_free(session, name)


def state_of(row: InvitationRow, now: datetime) -> InvitationState:
    """Return what has become of an invitation."""
    if row.token_id is not None:
        return InvitationState.USED
    if row.revoked_at is not None:
        return InvitationState.REVOKED
    return InvitationState.EXPIRED if row.expires_at <= now else InvitationState.OPEN


def to_schema(row: InvitationRow, now: datetime) -> Invitation:
    """Return what the API shows of an invitation."""
    return Invitation(
        id=row.id,
        state=state_of(row, now),
        role=Role(row.role),
        models=row.models,
        name=row.name,
        token_seconds=row.lifetime_seconds,
        made_by=row.maker.contributor.name if row.maker else None,
        created_at=row.created_at,
        expires_at=row.expires_at,
        joined=row.token.contributor.name if row.token else None,
    )


def _may_invite(wanted: InvitationRequest, principal: Principal | None) -> Principal:
    who = require_anywhere(principal, Role.MAINTAINER)
    for model in wanted.models or (None,):
        require(who, Role.MAINTAINER, model)
    if wanted.role == Role.ADMIN:
        raise Forbidden(
            "Nobody is invited as an admin.",
            hint="Where the server runs: coldfusion-server token create NAME --role admin",
        )
    if wanted.role == Role.MAINTAINER and not may(who, Role.ADMIN):
        raise Forbidden(
            "Only an admin invites maintainers.", hint="Ask the operator of this Repository."
        )
    return who


def _is_business_of(row: InvitationRow, who: Principal) -> bool:
    made_by = row.maker.contributor_id if row.maker else None
    return who.models is None or made_by == who.contributor_id
