"""
Which bases wait for the Repository's own evaluator, and how often it began with each.

A try is counted before it begins, since it may end the process. After some of them the base is
left, with an event that says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy import ColumnElement, and_, delete, or_, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import BaseRow, EvaluationRow, EvaluationTryRow, ModelRow
from coldfusion_server.events import outbox
from coldfusion_server.services import leases
from coldfusion_server.services.context import Context
from coldfusion_shared.schemas.evaluations import ProtocolName

log = structlog.get_logger(__name__)

# Ten minutes in all, and what the tries themselves take.
MAX_TRIES = 4
RETRY_SECONDS = 30.0
RETRY_GROWTH = 4
DIED = "The evaluator's process ended each time; perhaps its memory did not suffice."


@dataclass(frozen=True)
class Measurement:
    """What is measured of every base: a suite, by its name and digest, and a protocol."""

    suite: str
    digest: str
    protocol: ProtocolName

    def key(self, base: int) -> str:
        """Return the key of the lease under which a base is measured."""
        return f"evaluation:{base}:{self.protocol}:{self.digest}"


def waiting(ctx: Context, what: Measurement) -> list[int]:
    """Return the bases that nobody has measured so, and that may be tried now, newest first."""
    query = (
        select(BaseRow.id)
        .outerjoin(EvaluationTryRow, and_(EvaluationTryRow.base_id == BaseRow.id, _tried(what)))
        .where(
            ~select(EvaluationRow.id)
            .where(EvaluationRow.base_id == BaseRow.id, _measured(what))
            .exists(),
            or_(EvaluationTryRow.attempts.is_(None), EvaluationTryRow.attempts <= MAX_TRIES),
            or_(EvaluationTryRow.retry_at.is_(None), EvaluationTryRow.retry_at <= ctx.now()),
        )
        .order_by(BaseRow.id.desc())
    )
    with ctx.database.read() as session:
        return list(session.scalars(query))


def begin(ctx: Context, what: Measurement, base: int, lease: leases.Lease) -> int | None:
    """Count a try and return how many there are; null where another has measured it meanwhile."""
    measured = select(EvaluationRow.id).where(EvaluationRow.base_id == base, _measured(what))
    with ctx.database.write() as session:
        leases.check(session, lease)
        if session.scalar(measured.limit(1)) is not None:
            return None
        row = _row(session, what, base)
        row.attempts += 1
        return row.attempts


def end(ctx: Context, what: Measurement, base: int) -> None:
    """Forget the tries of a base: it was measured."""
    with ctx.database.write() as session:
        session.execute(
            delete(EvaluationTryRow).where(EvaluationTryRow.base_id == base, _tried(what))
        )


def fail(
    ctx: Context, what: Measurement, base: int, lease: leases.Lease, tries: int, reason: str
) -> None:
    """Try again later, or leave the base; raises `LeaseLost`."""
    if tries >= MAX_TRIES:
        leave(ctx, what, base, lease, reason)
        return
    wait = RETRY_SECONDS * RETRY_GROWTH ** (tries - 1)
    put_off(ctx, what, base, lease, tries, wait)
    log.error("evaluation failed", base=base, tries=tries, again_in=wait, why=reason)


def put_off(
    ctx: Context, what: Measurement, base: int, lease: leases.Lease, tries: int, seconds: float
) -> None:
    """Let the base wait, with so many tries behind it; raises `LeaseLost`."""
    with ctx.database.write() as session:
        leases.check(session, lease)
        row = _row(session, what, base)
        row.attempts, row.retry_at = tries, ctx.now() + timedelta(seconds=seconds)


def leave(ctx: Context, what: Measurement, base: int, lease: leases.Lease, reason: str) -> None:
    """Try no more, and say why; raises `LeaseLost`."""
    with ctx.database.write() as session:
        leases.check(session, lease)
        _row(session, what, base).attempts = MAX_TRIES + 1
        found = session.get_one(BaseRow, base)
        model = session.get_one(ModelRow, found.model_id).name
        data = {
            "version": f"v{found.number}",
            "suite": what.suite,
            "protocol": what.protocol,
            "reason": reason,
        }
        outbox.append(session, ctx.now(), "evaluation.failed", model, data)
    log.error("evaluation given up", model=model, version=data["version"], why=reason)


def forget(ctx: Context, what: Measurement) -> None:
    """Forget all tries, so that bases that were left are tried again."""
    with ctx.database.write() as session:
        session.execute(delete(EvaluationTryRow).where(_tried(what)))


def _measured(what: Measurement) -> ColumnElement[bool]:
    return and_(EvaluationRow.suite_digest == what.digest, EvaluationRow.protocol == what.protocol)


def _tried(what: Measurement) -> ColumnElement[bool]:
    return and_(
        EvaluationTryRow.suite_digest == what.digest, EvaluationTryRow.protocol == what.protocol
    )


def _row(session: Session, what: Measurement, base: int) -> EvaluationTryRow:
    row = session.get(EvaluationTryRow, (base, what.digest, what.protocol))
    if row is None:
        row = EvaluationTryRow(
            base_id=base, suite_digest=what.digest, protocol=what.protocol, attempts=0
        )
        session.add(row)
    return row
