"""
Deliveries taken up, one try at a time, and what came of each.

Who tries one holds it for a while, so that no other process sends the same at the same time. What
somebody held who was killed in between is sent again after that while: at least once.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import DeliveryRow, WebhookRow
from coldfusion_server.events import outbox
from coldfusion_server.events.webhooks.messages import body_of, encoded, headers_of
from coldfusion_server.events.webhooks.posting import SECONDS, Answer, Letter, seconds_of
from coldfusion_server.faults import fault_point
from coldfusion_server.services.context import Context
from coldfusion_server.services.webhooks import target_of
from coldfusion_shared.schemas.webhooks import WebhookFormat
from coldfusion_shared.webhooks import JITTER, LONGEST_PAUSE, PENDING, DeliveryState, pause_after

log = structlog.get_logger(__name__)

# Longer than any try takes.
HELD = timedelta(seconds=3 * SECONDS)
# As far ahead as a next try can be, and a little more.
AHEAD = timedelta(seconds=LONGEST_PAUSE * (1 + JITTER)) + HELD
# A webhook that has failed for so long, and at least so often, is given up.
FAILING = timedelta(days=3)
LEAST_FAILURES = 5
GONE = 410


@dataclass(frozen=True)
class Job:
    """
    One try.

    Attributes:
        number: of the delivery.
        webhook: whose it is.
        failing: whether the webhook's last try failed, or took long.
        held_by: by which the delivery is held.
    """

    number: int
    webhook: str
    failing: bool
    held_by: str


def claim(
    ctx: Context,
    busy: Collection[str],
    room: int,
    room_for_failing: int,
    slow: Collection[str] = (),
) -> list[Job]:
    """
    Hold deliveries that are due, one of each webhook, and return them.

    Args:
        ctx: the service's surroundings.
        busy: webhooks of which one is under way in this process.
        room: how many, at most.
        room_for_failing: how many of webhooks whose last try failed or took long: the next one may
            take long, too, and others shall not wait for them.
        slow: webhooks whose last try took long.
    """
    with ctx.database.read() as session:
        found = _due(session, ctx.now(), busy, slow)
    failing = [number for number, fails in found if fails][: max(0, room_for_failing)]
    well = [number for number, fails in found if not fails]
    numbers = [*well, *failing][: max(0, room)]
    return _hold(ctx, numbers, slow) if numbers else []


def letter_of(ctx: Context, job: Job) -> Letter | None:
    """
    Return what to post; null: it is gone, or somebody else's by now.

    Raises:
        ConfigurationError: the webhook's address cannot be read any more.
    """
    with ctx.database.read() as session:
        row = session.get(DeliveryRow, job.number)
        if row is None or row.held_by != job.held_by:
            return None
        target, form = target_of(ctx, row.webhook), WebhookFormat(row.webhook.format)
        body = encoded(body_of(row.event, form))
        now = ctx.now()
        headers = headers_of(row.id, now, body, target.secrets_at(now), form, target.authorization)
        return Letter(target.url, body, headers)


def record(ctx: Context, job: Job, answer: Answer) -> None:
    """Write down what came of a try, unless somebody else has taken the delivery up since."""
    fault_point(ctx.settings, "webhook.sent")
    with ctx.database.write() as session:
        # The webhook first, as everybody who needs both.
        hook = session.get(WebhookRow, job.webhook, with_for_update={"of": WebhookRow})
        row = session.get(DeliveryRow, job.number, with_for_update={"of": DeliveryRow})
        if hook is None or row is None or row.held_by != job.held_by:
            return
        _finish(ctx, row, answer)
        _judge(ctx, session, hook, row, answer)
        fault_point(ctx.settings, "webhook.recording")
    log.info(
        "webhook", webhook=job.webhook, delivery=row.id, to=hook.origin, state=row.state,
        attempts=row.attempts, status=answer.status, error=answer.error,
    )  # fmt: skip


def _due(
    session: Session, now: datetime, busy: Collection[str], slow: Collection[str]
) -> list[tuple[int, bool]]:
    """Return the oldest delivery that is due of each webhook, and whether that fails or is slow."""
    query = (
        select(func.min(DeliveryRow.number), func.max(WebhookRow.failures), DeliveryRow.webhook_id)
        .join(DeliveryRow.webhook)
        .where(_is_due(now), DeliveryRow.webhook_id.not_in(busy))
        .group_by(DeliveryRow.webhook_id)
        .order_by(func.min(DeliveryRow.next_try_at))
    )
    return [
        (number, failures > 0 or hook in slow) for number, failures, hook in session.execute(query)
    ]


def _is_due(now: datetime) -> ColumnElement[bool]:
    """What is farther ahead than it can be was written down by a clock that was set back since."""
    tried, held = DeliveryRow.next_try_at, DeliveryRow.held_until
    return and_(
        DeliveryRow.state.in_(PENDING),
        or_(tried <= now, tried > now + AHEAD),
        or_(held.is_(None), held <= now, held > now + AHEAD),
        # A ping tries out also what is not active.
        or_(WebhookRow.active, DeliveryRow.event_id.is_(None)),
    )


def _hold(ctx: Context, numbers: Collection[int], slow: Collection[str]) -> list[Job]:
    """Hold those of the deliveries that nobody has taken up since they were looked at."""
    now, jobs = ctx.now(), []
    with ctx.database.write() as session:
        query = (
            select(DeliveryRow)
            .join(DeliveryRow.webhook)
            .where(DeliveryRow.number.in_(numbers), _is_due(now))
            .order_by(DeliveryRow.number)
            .with_for_update(of=DeliveryRow, skip_locked=True)
        )
        for row in session.scalars(query):
            row.held_by, row.held_until = secrets.token_hex(8), now + HELD
            failing = row.webhook.failures > 0 or row.webhook_id in slow
            jobs.append(Job(row.number, row.webhook_id, failing, row.held_by))
    return jobs


def _finish(ctx: Context, row: DeliveryRow, answer: Answer) -> None:
    now = ctx.now()
    row.attempts += 1
    row.tried_at, row.status, row.seconds = now, answer.status, answer.seconds
    row.error = None if answer.error is None else answer.error[:500]
    row.held_by, row.held_until, row.next_try_at = None, None, None
    if answer.went_well:
        row.state, row.finished_at = DeliveryState.DELIVERED, now
        return
    asked_for = seconds_of(answer.retry_after, now)
    pause = pause_after(row.attempts, random.random(), asked_for)
    # Somebody waits for a ping: he would rather send another one.
    if pause is None or row.event_id is None or answer.status == GONE:
        row.state, row.finished_at = DeliveryState.GIVEN_UP, now
    else:
        row.state, row.next_try_at = DeliveryState.FAILED, now + timedelta(seconds=pause)


def _judge(
    ctx: Context, session: Session, hook: WebhookRow, row: DeliveryRow, answer: Answer
) -> None:
    """Count what failed, and give a webhook up that has failed for days."""
    now = ctx.now()
    if answer.went_well:
        hook.failures, hook.failing_since = 0, None
        return
    hook.failures += 1
    hook.failing_since = hook.failing_since or now
    for_days = now - hook.failing_since >= FAILING and hook.failures >= LEAST_FAILURES
    if hook.active and (for_days or (answer.status == GONE and row.event_id is not None)):
        hook.active, hook.paused_at = False, now
        data: dict[str, Any] = {
            "webhook": hook.id,
            "failures": hook.failures,
            "since": hook.failing_since.isoformat().replace("+00:00", "Z"),
            "error": row.error,
        }
        model = None if hook.model is None else hook.model.name
        outbox.append(session, now, "webhook.paused", model, data)
