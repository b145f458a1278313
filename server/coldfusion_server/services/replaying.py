"""
A replay's work: one base after the other is fused again, each kept as soon as its files are.

It can be killed anywhere: another worker goes on behind the last base that was kept.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import CandidateRow, ModelRow, ReplayRow
from coldfusion_server.faults import fault_point
from coldfusion_server.services import (
    candidates,
    head_moves,
    leases,
    reasons,
    replay_course,
    replays,
)
from coldfusion_server.services.context import Context
from coldfusion_server.services.distances import relative_distance
from coldfusion_server.services.fuse_inputs import Input
from coldfusion_server.services.fusing import Fused, Work, describe, fuse
from coldfusion_server.services.garbage import check_stored
from coldfusion_server.services.publishing import MAX_RETRY_SECONDS, RETRY_SECONDS
from coldfusion_server.services.references import refer
from coldfusion_shared.errors import ColdFusionError, InvalidRequest, LeaseLost, StateConflict
from coldfusion_shared.replays import ReplayState
from coldfusion_shared.schemas.bases import Manifest

log = structlog.get_logger(__name__)

_S = ReplayState
UNDER_WAY = (_S.QUEUED, _S.RUNNING, _S.FAILED)


def replay_next(ctx: Context, holder: str) -> bool:
    """Fuse the next base of one replay again; return whether there was one."""
    for replay in _waiting(ctx):
        with leases.held(ctx, f"replay:{replay}", holder) as lease:
            if lease is None:
                continue
            try:
                _go_on(ctx, replay, lease)
            except (StateConflict, LeaseLost) as error:
                log.info("replay overtaken", replay=replay, why=error.message)
            except ColdFusionError as error:
                _fail(ctx, replay, lease, error.message)
            except Exception as error:
                # A fault of ours: the replay must say so, and be tried again later and later.
                log.exception("replay broke", replay=replay)
                _fail(ctx, replay, lease, reasons.internal(error))
            return True
    return False


def _waiting(ctx: Context) -> list[str]:
    with ctx.database.read() as session:
        return list(
            session.scalars(
                select(ReplayRow.id)
                .where(
                    ReplayRow.state.in_(UNDER_WAY),
                    or_(ReplayRow.retry_at.is_(None), ReplayRow.retry_at <= ctx.now()),
                )
                .order_by(ReplayRow.created_at, ReplayRow.id)
            )
        )


@dataclass(frozen=True)
class _Step:
    """
    The next base of a replay.

    Attributes:
        number: its place, from 1.
        total: how many there are.
        old: the base that is fused again.
        given: what it is fused from now.
    """

    number: int
    total: int
    old: Manifest
    given: Input


def _go_on(ctx: Context, replay: str, lease: leases.Lease) -> None:
    if not _begin(ctx, replay, lease):
        return
    fault_point(ctx.settings, "replay.begun")
    with ctx.database.read() as session:
        step = _next_step(session, session.get_one(ReplayRow, replay))
    renewal = leases.Renewal(ctx, lease, lambda session, _: _check_running(session, replay))
    (made,) = fuse(ctx, step.given, Work(renewal.alive), ctx.store)
    manifest = describe(ctx, step.given, made)
    distance = relative_distance(ctx, manifest.files, step.old.files, renewal.alive)
    fault_point(ctx.settings, "replay.fused")
    _keep(ctx, replay, lease, step, manifest, made, distance)
    fault_point(ctx.settings, "replay.kept")


def _begin(ctx: Context, replay: str, lease: leases.Lease) -> bool:
    """Return whether there is something to fuse; inputs may have been erased meanwhile."""
    with ctx.database.write() as session:
        leases.check(session, lease)
        row = replays.locked(session, replay)
        model = session.get_one(ModelRow, row.model_id)
        try:
            way = replays.course(session, model, row)
            replay_course.check_stored(session, model, way, row.without)
        except InvalidRequest as error:
            replays.give_up(session, ctx.now(), row, lease, failure=error.message)
            return False
        if row.state != _S.RUNNING:
            changes = {"attempts": row.attempts + 1, "failure": None, "retry_at": None}
            replays.advance(session, ctx.now(), row, _S.RUNNING, lease, **changes)
        return True


def _next_step(session: Session, row: ReplayRow) -> _Step:
    """Return what comes behind the last base that was kept."""
    model = session.get_one(ModelRow, row.model_id)
    way, done = replays.course(session, model, row), replays.steps(session, row)
    old, number = way.again[len(done)], len(done) + 1
    onto = candidates.manifest_of(done[-1]) if done else way.start
    # What it is called if it is published before anything else is.
    version = f"v{head_moves.newest(session, model) + number}"
    given = replay_course.fused_again(session, model, old, onto, row.without, version)
    return _Step(number, len(way.again), old, given)


def _check_running(session: Session, replay: str) -> None:
    state = session.scalar(select(ReplayRow.state).where(ReplayRow.id == replay))
    if state != _S.RUNNING:
        raise StateConflict(f"Replay {replay} is {state} by now.")


def _keep(
    ctx: Context,
    replay: str,
    lease: leases.Lease,
    step: _Step,
    manifest: Manifest,
    made: Fused,
    distance: float | None,
) -> None:
    """Keep the base that was fused; behind the last one the replay is ready."""
    with ctx.database.write() as session:
        refer(session)
        leases.check(session, lease)
        row = replays.locked(session, replay)
        _check_running(session, replay)
        check_stored(ctx, [*manifest.files, *manifest.master, *manifest.optimizer_state])
        session.add(
            CandidateRow(
                id=secrets.token_hex(8),
                model_id=row.model_id,
                replay_id=row.id,
                step=step.number,
                manifest=manifest.canonical().decode(),
                relative_norm=made.relative_norm,
                distance=distance,
                chosen=True,
                created_at=ctx.now(),
            )
        )
        # What fails next is another base's fault.
        row.attempts = 0
        if step.number == step.total:
            replays.advance(session, ctx.now(), row, _S.READY, lease)
    log.info("fused again", replay=replay, base=step.old.version, step=step.number)


def _fail(ctx: Context, replay: str, lease: leases.Lease, why: str) -> None:
    """Keep why it failed, and try again later, longer and longer."""
    log.error("replay failed", replay=replay, why=why)
    with ctx.database.write() as session:
        leases.check(session, lease)
        row = replays.locked(session, replay)
        if row.state != _S.RUNNING:
            log.info("replay overtaken", replay=replay, state=row.state)
            return
        wait = min(MAX_RETRY_SECONDS, RETRY_SECONDS * 2 ** min(30, max(0, row.attempts - 1)))
        retry_at = ctx.now() + timedelta(seconds=wait)
        replays.advance(session, ctx.now(), row, _S.FAILED, lease, failure=why, retry_at=retry_at)
