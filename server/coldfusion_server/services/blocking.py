"""
Keeping somebody out, and letting them in again.

That a contributor is blocked is written down once, in their own row, and all ways in look there:
tokens, sessions, sign-ins and invitations. None of those is changed, so that whoever is unblocked
has what they had before, as far as it has not ended by itself. What they have contributed stays;
what may still be fused is told, so that somebody can decide on it. So are the webhooks that they
have made: those belong to their models, and go on sending.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import (
    ContributionRow,
    ContributorRow,
    ModelRow,
    RoundRow,
    TokenRow,
    WebhookRow,
)
from coldfusion_server.events import audit
from coldfusion_server.services.context import Context
from coldfusion_server.services.contributors import existing
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.schemas.contributors import Block
from coldfusion_shared.schemas.evaluations import OWN_EVALUATOR
from coldfusion_shared.schemas.tokens import Role

_S = ContributionState
# What goes into the next base unless somebody decides otherwise, or may do so after a decision.
WAITING = (_S.COMPLETED, _S.QUARANTINED, _S.ACCEPTED, _S.SET_ASIDE)


@dataclass(frozen=True)
class Waiting:
    """A contribution that may still be fused: its id, its model and round, and its state."""

    id: str
    model: str
    round: int
    state: ContributionState


@dataclass(frozen=True)
class Made:
    """A webhook that is active: its id, its model (null: all public ones), and to which server."""

    id: str
    model: str | None
    origin: str


@dataclass(frozen=True)
class Person:
    """
    A contributor, as the operator sees them.

    Attributes:
        name: the contributor's.
        created_at: since when there is one.
        blocked_at: since when they are kept out; null: they are not.
        reason: why, in the operator's words.
    """

    name: str
    created_at: datetime
    blocked_at: datetime | None
    reason: str | None


@dataclass(frozen=True)
class Blocked:
    """
    What a block, or its end, is about.

    Attributes:
        person: whom, as they are now.
        changed: false: it was so before, and nothing was changed.
        tokens: how many tokens and sessions it keeps out, or lets in again.
        waiting: what of theirs may still be fused, oldest first.
        published: how many of their contributions are in bases.
        webhooks: those that they have made and that are sent events, oldest first.
    """

    person: Person
    changed: bool
    tokens: int
    waiting: list[Waiting]
    published: int
    webhooks: list[Made]


def block(ctx: Context, name: str, wanted: Block, principal: Principal | None) -> Blocked:
    """
    Keep the contributor called `name` out; harmless to repeat, the first reason stays.

    Raises:
        Forbidden: the caller is no admin.
        NotFound: there is no such contributor.
        InvalidRequest: it is a part of the Repository itself.
    """
    who = require(principal, Role.ADMIN)
    if name == OWN_EVALUATOR:
        raise InvalidRequest(
            "The Repository's own evaluator is a part of it, and cannot be blocked.",
            hint="To be without one, start the server without --evaluate.",
        )
    with ctx.database.write() as session:
        row = existing(session, name)
        changed = row.blocked_at is None
        if changed:
            row.blocked_at, row.blocked_reason = ctx.now(), wanted.reason
            audit.note(
                session,
                ctx.now(),
                who,
                "contributor.blocked",
                subject=row.name,
                reason=wanted.reason,
            )
        return _told(session, row, ctx.now(), changed=changed)


def unblock(ctx: Context, name: str, principal: Principal | None) -> Blocked:
    """
    Let the contributor called `name` in again; harmless to repeat.

    Tokens that have neither expired nor been revoked are good again.

    Raises:
        Forbidden: the caller is no admin.
        NotFound: there is no such contributor.
    """
    who = require(principal, Role.ADMIN)
    with ctx.database.write() as session:
        row = existing(session, name)
        changed = row.blocked_at is not None
        if changed:
            row.blocked_at = row.blocked_reason = None
            audit.note(session, ctx.now(), who, "contributor.unblocked", subject=row.name)
        return _told(session, row, ctx.now(), changed=changed)


def list_people(
    ctx: Context, principal: Principal | None, *, only_blocked: bool = False
) -> list[Person]:
    """Return all contributors by name, or those who are blocked; raises `Forbidden`."""
    require(principal, Role.ADMIN)
    query = select(ContributorRow).order_by(ContributorRow.name)
    if only_blocked:
        query = query.where(ContributorRow.blocked_at.is_not(None))
    with ctx.database.read() as session:
        return [_person(row) for row in session.scalars(query)]


def _told(session: Session, row: ContributorRow, now: datetime, *, changed: bool) -> Blocked:
    return Blocked(
        _person(row),
        changed,
        _tokens(session, row, now),
        _waiting(session, row),
        _fused(session, row),
        _webhooks(session, row),
    )


def _person(row: ContributorRow) -> Person:
    return Person(row.name, row.created_at, row.blocked_at, row.blocked_reason)


def _tokens(session: Session, row: ContributorRow, now: datetime) -> int:
    """Return how many tokens let them in, or would if they were not blocked."""
    query = select(func.count(TokenRow.id)).where(
        TokenRow.contributor_id == row.id,
        TokenRow.revoked_at.is_(None),
        TokenRow.expires_at.is_(None) | (TokenRow.expires_at > now),
    )
    return session.scalar(query) or 0


def _waiting(session: Session, row: ContributorRow) -> list[Waiting]:
    query = (
        select(ContributionRow.id, ModelRow.name, RoundRow.number, ContributionRow.state)
        .join(ModelRow, ModelRow.id == ContributionRow.model_id)
        .join(RoundRow, RoundRow.id == ContributionRow.round_id)
        .where(ContributionRow.contributor_id == row.id, ContributionRow.state.in_(WAITING))
        .order_by(ContributionRow.number)
    )
    return [Waiting(*found[:3], ContributionState(found[3])) for found in session.execute(query)]


def _fused(session: Session, row: ContributorRow) -> int:
    query = select(func.count(ContributionRow.id)).where(
        ContributionRow.contributor_id == row.id, ContributionRow.result_number.is_not(None)
    )
    return session.scalar(query) or 0


def _webhooks(session: Session, row: ContributorRow) -> list[Made]:
    query = (
        select(WebhookRow.id, ModelRow.name, WebhookRow.origin)
        .outerjoin(WebhookRow.model)
        .where(WebhookRow.contributor_id == row.id, WebhookRow.active)
        .order_by(WebhookRow.created_at, WebhookRow.id)
    )
    return [Made(*found) for found in session.execute(query)]
