"""What failed and is not mended yet: why, when, and when it is tried again."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import (
    ContributionRow,
    DeliveryRow,
    EvaluationTryRow,
    EventRow,
    ModelRow,
    ReplayRow,
    RoundRow,
    WebhookRow,
)
from coldfusion_server.services.evaluation_tries import DIED, MAX_TRIES
from coldfusion_server.services.health_leases import round_of, subject_of
from coldfusion_server.services.replaying import UNDER_WAY as REPLAYED
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.rounds import UNDER_WAY, RoundState
from coldfusion_shared.schemas.health import Failure
from coldfusion_shared.webhooks import PENDING

# So many of one kind, and so many of the newest events among which their times are looked for.
MOST, REMEMBERED = 20, 20_000
# Once or twice every receiver fails.
FAILED_OFTEN = 3
_TOLD = {"round.failed": "round", "replay.failed": "replay"}
BROKE = "A fault of the Repository's own; its log tells more."
_BEGINNING = datetime.min.replace(tzinfo=UTC)


def failures(session: Session, now: datetime) -> list[Failure]:
    """Return what failed, the latest first; those whose time nobody kept come last."""
    times = _times(session)
    found = [
        *_rounds(session, times),
        *_screenings(session),
        *_evaluations(session),
        *_replays(session, times),
        *_webhooks(session),
    ]
    return sorted(found, key=lambda one: one.at or _BEGINNING, reverse=True)


def _times(session: Session) -> dict[tuple[str, str | None, str], datetime]:
    """Return when rounds and replays failed last, by kind, model and number."""
    last = session.scalar(select(EventRow.id).order_by(EventRow.id.desc()).limit(1)) or 0
    query = select(EventRow).where(EventRow.id > last - REMEMBERED, EventRow.type.in_(tuple(_TOLD)))
    found: dict[tuple[str, str | None, str], datetime] = {}
    for event in session.scalars(query.order_by(EventRow.id.desc()).limit(10 * MOST)):
        kind = _TOLD[event.type]
        found.setdefault((kind, event.model, str(event.data.get(kind))), event.at)
    return found


def _rounds(session: Session, times: dict[tuple[str, str | None, str], datetime]) -> list[Failure]:
    query = (
        select(RoundRow)
        .where(
            RoundRow.state.in_(UNDER_WAY),
            or_(RoundRow.state == RoundState.FAILED, RoundRow.attempts > 0),
            RoundRow.reason.is_not(None),
        )
        .order_by(RoundRow.id.desc())
        .limit(MOST)
    )
    found = []
    for row in session.scalars(query):
        told, address = round_of(session, row)
        model = session.get_one(ModelRow, row.model_id).name
        found.append(
            Failure(
                what=told,
                model=model,
                address=address,
                reason=row.reason or "",
                tries=row.attempts,
                at=times.get(("round", model, str(row.number))),
                again_at=row.retry_at,
            )
        )
    return found


def _screenings(session: Session) -> list[Failure]:
    query = (
        select(ContributionRow)
        .where(
            ContributionRow.state == ContributionState.COMPLETED,
            ContributionRow.retry_at.is_not(None),
        )
        .order_by(ContributionRow.number.desc())
        .limit(MOST)
    )
    return [
        Failure(
            what=f"screening of {row.id}",
            model=row.model.name,
            address=f"/contributions/{row.id}",
            reason=row.reason or BROKE,
            tries=row.attempts,
            at=None,
            again_at=row.retry_at,
        )
        for row in session.scalars(query)
    ]


def _evaluations(session: Session) -> list[Failure]:
    query = (
        select(EvaluationTryRow)
        .where(
            or_(EvaluationTryRow.attempts > MAX_TRIES, EvaluationTryRow.reason.is_not(None)),
        )
        .order_by(EvaluationTryRow.retry_at.desc(), EvaluationTryRow.subject)
        .limit(MOST)
    )
    found = []
    for row in session.scalars(query):
        told, address = subject_of(session, row.subject)
        left = row.attempts > MAX_TRIES
        found.append(
            Failure(
                what=f"evaluation of {told or row.subject}, {row.protocol}",
                model=None,
                address=address,
                reason=row.reason or DIED,
                tries=min(row.attempts, MAX_TRIES),
                at=None,
                again_at=None if left else row.retry_at,
            )
        )
    return found


def _replays(session: Session, times: dict[tuple[str, str | None, str], datetime]) -> list[Failure]:
    query = select(ReplayRow).where(ReplayRow.state.in_(REPLAYED), ReplayRow.failure.is_not(None))
    found = []
    for row in session.scalars(query.order_by(ReplayRow.created_at.desc()).limit(MOST)):
        model = session.get_one(ModelRow, row.model_id).name
        found.append(
            Failure(
                what=f"replay {row.id} of {model}",
                model=model,
                address=f"/decide/models/{model}/replays",
                reason=row.failure or "",
                tries=row.attempts,
                at=times.get(("replay", model, row.id)),
                again_at=row.retry_at,
            )
        )
    return found


def _webhooks(session: Session) -> list[Failure]:
    """Return the webhooks that were given up, or fail one time after the other."""
    query = (
        select(WebhookRow)
        .where(
            or_(
                WebhookRow.paused_at.is_not(None),
                and_(WebhookRow.active, WebhookRow.failures >= FAILED_OFTEN),
            )
        )
        .order_by(WebhookRow.failing_since.desc(), WebhookRow.id)
        .limit(MOST)
    )
    return [_webhook(session, row) for row in session.scalars(query)]


def _webhook(session: Session, row: WebhookRow) -> Failure:
    of = DeliveryRow.webhook_id == row.id
    last = session.execute(
        select(DeliveryRow.error, DeliveryRow.tried_at)
        .where(of, DeliveryRow.error.is_not(None))
        .order_by(DeliveryRow.tried_at.desc())
        .limit(1)
    ).first()
    again = select(func.min(DeliveryRow.next_try_at)).where(of, DeliveryRow.state.in_(PENDING))
    error, tried_at = (None, None) if last is None else last
    return Failure(
        what=f"webhook {row.id} to {row.origin}",
        model=None if row.model is None else row.model.name,
        address=f"/webhooks/{row.id}",
        reason=error or "no reason was kept",
        tries=row.failures,
        at=tried_at,
        again_at=session.scalar(again) if row.active else None,
    )
