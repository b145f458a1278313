"""What waits for work, how much of it is in work, and how long the oldest has waited."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from coldfusion_server.db.tables import (
    ContributionRow,
    DeliveryRow,
    LeaseRow,
    ReplayRow,
    RoundRow,
    WebhookRow,
)
from coldfusion_server.services.replaying import UNDER_WAY as REPLAYED
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.health import Queue
from coldfusion_shared.webhooks import PENDING

_R = RoundState


def queues(session: Session, now: datetime) -> list[Queue]:
    """Return the queues at the time `now`, from the first step of a contribution to the last."""
    contributions, rounds = ContributionRow.state, RoundRow.state
    declared = contributions == ContributionState.DECLARED
    completed = contributions == ContributionState.COMPLETED
    closed = rounds.in_((_R.CLOSED, _R.FUSING, _R.FAILED))
    evaluating = rounds == _R.EVALUATING
    replayed = ReplayRow.state.in_(REPLAYED)
    screened = _later(session, now, completed, ContributionRow.retry_at)
    fused = _later(session, now, closed, RoundRow.retry_at)
    gated = _later(session, now, evaluating, RoundRow.retry_at)
    again = _later(session, now, replayed, ReplayRow.retry_at)
    leases = _live(session, now)
    return [
        Queue(
            kind="uploading",
            in_work=0,
            later=0,
            **_counted(session, declared, ContributionRow.declared_at),
        ),
        Queue(
            kind="screening",
            in_work=leases["contribution"],
            later=screened,
            **_counted(session, completed, ContributionRow.completed_at),
        ),
        Queue(
            kind="fusing",
            in_work=leases["round"],
            later=fused,
            **_counted(session, closed, RoundRow.closed_at),
        ),
        Queue(
            kind="gates",
            in_work=leases["evaluation"],
            later=gated,
            **_counted(session, evaluating, RoundRow.evaluating_at),
        ),
        Queue(
            kind="replays",
            in_work=leases["replay"],
            later=again,
            **_counted(session, replayed, ReplayRow.created_at),
        ),
        _of_webhooks(session, now),
    ]


def _of_webhooks(session: Session, now: datetime) -> Queue:
    """Return what is to be sent to webhooks; what a paused one has left waits for nobody's work."""
    active = select(WebhookRow.id).where(WebhookRow.active)
    pending = and_(DeliveryRow.state.in_(PENDING), DeliveryRow.webhook_id.in_(active))
    held = select(func.count()).where(pending, DeliveryRow.held_until > now)
    return Queue(
        kind="webhooks",
        in_work=session.scalar(held) or 0,
        later=_later(session, now, pending, DeliveryRow.next_try_at),
        **_counted(session, pending, DeliveryRow.created_at),
    )


def _counted(
    session: Session, where: ColumnElement[bool], since: InstrumentedAttribute[Any]
) -> dict[str, Any]:
    number, oldest = session.execute(select(func.count(), func.min(since)).where(where)).one()
    return {"waiting": number, "oldest": oldest}


def _later(
    session: Session,
    now: datetime,
    where: ColumnElement[bool],
    retry_at: InstrumentedAttribute[datetime | None],
) -> int:
    query = select(func.count(retry_at)).where(and_(where, retry_at > now))
    return session.scalar(query) or 0


def _live(session: Session, now: datetime) -> dict[str, int]:
    """Return how many leases of each kind are held."""
    found = dict.fromkeys(("contribution", "round", "evaluation", "replay"), 0)
    for key in session.scalars(select(LeaseRow.key).where(LeaseRow.expires_at > now)):
        kind = key.split(":", 1)[0]
        if kind in found:
            found[kind] += 1
    return found
