"""The metrics of the whole Repository: what waits, who works, how much room is left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import DeliveryRow, LeaseRow, WebhookRow
from coldfusion_server.events import outbox
from coldfusion_server.services.context import Context
from coldfusion_server.services.health_leases import KINDS, PARTS
from coldfusion_server.services.health_numbers import database_bytes
from coldfusion_server.services.health_queues import queues
from coldfusion_server.services.heartbeat import Part, heartbeat_file, silence
from coldfusion_shared.errors import StorageUnavailable
from coldfusion_shared.schemas.health import WorkKind
from coldfusion_shared.webhooks import PENDING, DeliveryState


@dataclass(frozen=True)
class Work:
    """The metrics, and the id of the newest event."""

    families: list[Metric]
    newest: int


def of_work(ctx: Context, session: Session, now: datetime) -> Work:
    """Return the metrics of the whole Repository at the time `now`."""
    newest = outbox.newest(session)
    families = [
        *_queues(session, now),
        *_leases(session, now),
        _signs_of_life(ctx),
        *_room(ctx, session),
        *_webhooks(session, now),
    ]
    return Work(families, newest)


def _gauge(name: str, told: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"coldfusion_{name}", told, labels=labels)


def _queues(session: Session, now: datetime) -> Iterator[Metric]:
    waiting = _gauge("queue_length", "What waits in this queue or is in work there.", "queue")
    in_work = _gauge("queue_in_work", "Leases held on what is in this queue.", "queue")
    later = _gauge("queue_later", "What has failed and waits for its next try.", "queue")
    oldest = _gauge(
        "queue_oldest_seconds", "For how long the oldest has waited; 0: nothing waits.", "queue"
    )
    for one in queues(session, now):
        waiting.add_metric([one.kind], one.waiting)
        in_work.add_metric([one.kind], one.in_work)
        later.add_metric([one.kind], one.later)
        since = 0.0 if one.oldest is None else max(0.0, (now - one.oldest).total_seconds())
        oldest.add_metric([one.kind], since)
    yield from (waiting, in_work, later, oldest)


def _leases(session: Session, now: datetime) -> Iterator[Metric]:
    held = _gauge("leases", "Leases that are held, by what is done under them.", "kind")
    alive = _gauge(
        "workers",
        "Processes that hold a lease, by what they are: those that have nothing to do hold none.",
        "part",
    )
    worked = _gauge(
        "part_worked_timestamp_seconds",
        "When a scheduler, worker or evaluator last held a lease, in seconds since 1970; missing: "
        "never.",
        "part",
    )
    kinds: dict[WorkKind, int] = {}
    for kind, number in _held(session, now):
        kinds[kind] = number
    for kind in (*KINDS.values(), "other"):
        held.add_metric([kind], kinds.get(kind, 0))
    for part, holders, last in _by_part(session, now):
        alive.add_metric([part], holders)
        if last is not None:
            worked.add_metric([part], min(last, now).timestamp())
    yield from (held, alive, worked)


def _held(session: Session, now: datetime) -> list[tuple[WorkKind, int]]:
    kind = case(
        *((LeaseRow.key.startswith(prefix), told) for prefix, told in KINDS.items()), else_="other"
    )
    query = select(kind, func.count()).where(LeaseRow.expires_at > now).group_by(kind)
    return [(told, number) for told, number in session.execute(query)]


def _by_part(session: Session, now: datetime) -> list[tuple[str, int, datetime | None]]:
    """Return by part how many processes hold leases, and when the last one ran out or will."""
    parts = {
        prefix: part for part, kinds in PARTS.items() for prefix, kind in KINDS.items()
        if kind in kinds
    }  # fmt: skip
    part = case(
        *((LeaseRow.key.startswith(prefix), told) for prefix, told in parts.items()), else_=""
    )
    holder = case((LeaseRow.expires_at > now, LeaseRow.holder))
    query = select(part, func.count(holder.distinct()), func.max(LeaseRow.expires_at))
    found: dict[str, tuple[int, Any]] = {
        told: (holders, last) for told, holders, last in session.execute(query.group_by(part))
    }
    return [(told, *found.get(told, (0, None))) for told in PARTS]


def _signs_of_life(ctx: Context) -> Metric:
    silent = _gauge(
        "part_silent_seconds",
        "Since when a part has shown no sign of life, where that is seen: in this process, or on "
        "this machine by the setting run_dir.",
        "part",
    )
    for part in (Part.SCHEDULER, Part.WORKER, Part.EVALUATOR):
        seconds = _silence(ctx, part)
        if seconds is not None:
            silent.add_metric([part.value], seconds)
    return silent


def _silence(ctx: Context, part: Part) -> float | None:
    beat, file = ctx.beats.get(part), heartbeat_file(ctx.settings, part)
    if beat is not None:
        return time.monotonic() - beat
    return None if file is None else silence(file)


def _room(ctx: Context, session: Session) -> Iterator[Metric]:
    free = _gauge("storage_free_bytes", "Room that is left in the store, where it tells.")
    # A store that is away tells nothing, and is seen by that; the rest is worth the more.
    with suppress(StorageUnavailable):
        room = ctx.store.free_bytes()
        if room is not None:
            free.add_metric([], room)
    reserve = _gauge(
        "storage_reserve_bytes", "Free room under which no upload is taken (min_free_bytes)."
    )
    reserve.add_metric([], ctx.settings.min_free_bytes)
    size = _gauge("database_bytes", "Size of the database.")
    size.add_metric([], database_bytes(session) or 0)
    yield from (free, reserve, size)


def _webhooks(session: Session, now: datetime) -> Iterator[Metric]:
    hooks = _gauge(
        "webhooks",
        "Webhooks by state: active; paused by the Repository since its receiver keeps failing; or "
        "switched off.",
        "state",
    )
    query = select(WebhookRow.active, WebhookRow.paused_at.is_not(None), func.count())
    counts: dict[str, int] = dict.fromkeys(("active", "paused", "off"), 0)
    grouped = query.group_by(WebhookRow.active, WebhookRow.paused_at.is_not(None))
    for active, paused, number in session.execute(grouped):
        counts["active" if active else "paused" if paused else "off"] += number
    for state, number in counts.items():
        hooks.add_metric([state], number)
    deliveries = _gauge(
        "webhook_deliveries",
        "Deliveries that are kept, by state: failed ones are tried again, given up ones are not.",
        "state",
    )
    oldest = _gauge(
        "webhook_oldest_pending_seconds",
        "For how long the oldest delivery of an active webhook has waited that is not delivered "
        "yet; 0: none waits.",
    )
    # By the index alone: what is delivered is kept for a month.
    by_state = select(DeliveryRow.state, func.count()).group_by(DeliveryRow.state)
    states = {state: number for state, number in session.execute(by_state)}
    for one in DeliveryState:
        deliveries.add_metric([one.value], states.get(one, 0))
    # What a webhook that is not active has left waits for nobody's work.
    pending = select(func.min(DeliveryRow.created_at)).join(DeliveryRow.webhook)
    first = session.scalar(pending.where(DeliveryRow.state.in_(PENDING), WebhookRow.active))
    oldest.add_metric([], max(0.0, (now - (first or now)).total_seconds()))
    yield from (hooks, deliveries, oldest)
