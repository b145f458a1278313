"""
Screening on the server: the upload becomes an object, which is screened; the verdict is kept.

What is beyond a limit waits in quarantine for a maintainer, as the model's policy says. It counts
for no round, and goes from one to the next until it is decided on.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from coldfusion_server import tracing
from coldfusion_server.db.tables import BaseRow, ContributionRow
from coldfusion_server.faults import fault_point
from coldfusion_server.services import bases, contributions, garbage, leases, uploads
from coldfusion_server.services.context import Context
from coldfusion_server.services.fusing import executor_of
from coldfusion_server.services.heartbeat import WorkStopped
from coldfusion_server.services.identity import screening_key
from coldfusion_server.services.lookup import manifest_of, policy_of
from coldfusion_server.services.past import held, past_of
from coldfusion_server.services.work_times import WorkTimed, keep
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import (
    ColdFusionError,
    DigestMismatch,
    LeaseLost,
    StateConflict,
    UploadIncomplete,
)
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.contributions import Finding, Verdict
from coldfusion_shared.screening.history import Past
from coldfusion_shared.screening.measures import Measures
from coldfusion_shared.screening.screen import Encoded, Screening, screen

log = structlog.get_logger(__name__)

WAIT = (
    "A maintainer decides on it; it is kept until then, and counts for no round. Where honest work "
    "is often like this, the model's policy sets the limit that is named in brackets."
)
SEND_AGAIN = "Run the same command again; it sends the bytes once more."
TELL_MAINTAINERS = "Tell its maintainers, and run the same command again when they have mended it."
# The check that finds what is nearly the same.
COPIES = "copies"
# Five minutes in all.
MAX_TRIES = 5
RETRY_SECONDS = 10.0


@dataclass(frozen=True)
class _Given:
    """What a contribution is screened against."""

    manifest: Manifest
    past: Past
    parameters: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class _Outcome:
    """
    What screening has found.

    Attributes:
        screening: its outcome.
        past: the others that it was compared with.
        began: when, by the clock that nobody sets.
        again: whether the same declaration may be made once more.
    """

    screening: Screening
    past: Past
    began: float
    again: bool = False


def screen_next(ctx: Context, holder: str) -> bool:
    """Screen one contribution that waits for it; return whether there was one."""
    for contribution in _waiting(ctx):
        with leases.held(ctx, f"contribution:{contribution}", holder) as lease:
            if lease is not None and _try(ctx, contribution, lease):
                return True
    return False


def _try(ctx: Context, contribution: str, lease: leases.Lease) -> bool:
    """
    Screen one contribution; return false where it has to wait, which holds up no other.

    A try that a fault of ours ends, or the death of its worker, counts: after some of them the
    contribution is rejected, or it would keep its round from ever closing.
    """
    tries = _begin(ctx, contribution, lease)
    fault_point(ctx.settings, "screening.begun")
    try:
        if tries > MAX_TRIES:
            _give_up(ctx, contribution, lease)
        else:
            with tracing.step("screen", contribution=contribution):
                _screen(ctx, contribution, lease)
    except (StateConflict, LeaseLost) as error:
        log.info("screening overtaken", contribution=contribution, why=error.message)
    except ColdFusionError as error:
        # It waits for the store to come back, which is no fault that it has brought out.
        log.error("screening failed", contribution=contribution, why=error.message)
        _put_off(ctx, contribution, tries - 1, 0, f"Its screening waits: {error.message}")
        return False
    except WorkStopped:
        _put_off(ctx, contribution, tries - 1, 0)
        raise
    except Exception:
        log.exception("screening broke", contribution=contribution, tries=tries)
        _put_off(ctx, contribution, tries, RETRY_SECONDS * 2 ** (tries - 1))
        return False
    return True


def _waiting(ctx: Context) -> list[str]:
    with ctx.database.read() as session:
        return list(
            session.scalars(
                select(ContributionRow.id)
                .where(
                    ContributionRow.state == ContributionState.COMPLETED,
                    or_(ContributionRow.retry_at.is_(None), ContributionRow.retry_at <= ctx.now()),
                )
                .order_by(ContributionRow.completed_at, ContributionRow.number)
            )
        )


def _begin(ctx: Context, contribution: str, lease: leases.Lease) -> int:
    """Count a try before it begins, since it may end the process; return how many there are."""
    with ctx.database.write() as session:
        leases.check(session, lease)
        row = _row(session, contribution)
        row.attempts += 1
        return row.attempts


def _put_off(
    ctx: Context, contribution: str, tries: int, seconds: float, reason: str | None = None
) -> None:
    with ctx.database.write() as session:
        row = _row(session, contribution)
        row.attempts, row.retry_at = tries, ctx.now() + timedelta(seconds=seconds)
        # What was decided on meanwhile keeps the reason that it got then.
        if reason is not None and row.state == ContributionState.COMPLETED:
            row.reason = reason


def _give_up(ctx: Context, contribution: str, lease: leases.Lease) -> None:
    with ctx.database.write() as session:
        leases.check(session, lease)
        row = _row(session, contribution)
        contributions.lock_round(session, row)
        if row.state != ContributionState.COMPLETED:
            return
        reason = (
            f"The Repository failed {MAX_TRIES} times to screen this, for a reason of its own that "
            "its log tells."
        )
        contributions.reject(session, ctx.now(), row, reason, TELL_MAINTAINERS, again=True)
        contributions.load_files(row)
    _clear_away(ctx, row)


def _screen(ctx: Context, contribution: str, lease: leases.Lease) -> None:
    with ctx.database.read() as session:
        row = _row(session, contribution)
        if row.state != ContributionState.COMPLETED:
            return
        contributions.load_files(row)
        given = _Given(
            manifest=_base_manifest(session, row),
            past=past_of(session, row),
            parameters=policy_of(row.model).screening,
        )
    renewal, began = leases.Renewal(ctx, lease), ctx.seconds()
    try:
        _store(ctx, row, renewal)
        fault_point(ctx.settings, "screening.stored")
    except (DigestMismatch, UploadIncomplete) as error:
        lost = Finding(check="digest", verdict="reject", message=error.message)
        outcome = _Outcome(Screening([lost]), given.past, began, again=True)
    else:
        outcome = _Outcome(_screened(ctx, row, given, renewal), given.past, began)
    _decide(ctx, contribution, lease, outcome)
    fault_point(ctx.settings, "screening.decided")
    with ctx.database.read() as session:
        row = _row(session, contribution)
        contributions.load_files(row)
    _clear_away(ctx, row)


def _clear_away(ctx: Context, row: ContributionRow) -> None:
    """Remove uploads and what was rejected."""
    with garbage.later_if_away(row):
        for key in uploads.upload_keys(row):
            ctx.store.discard_upload(key)
        if row.state in (ContributionState.REJECTED, ContributionState.WITHDRAWN):
            garbage.remove_rejected(ctx, row)


def _store(ctx: Context, row: ContributionRow, renewal: leases.Renewal) -> None:
    """
    Make objects of the uploads, also where the store has an object of that digest.

    Digests are public: who names one has to send its bytes, or anybody could contribute weights
    that he never had. What is an object already, this contributor has sent and nobody else.
    """
    for index, file in enumerate(row.files):
        if uploads.is_sent(file):
            ctx.store.adopt(uploads.key_of(row, index), file.sha256, renewal)
        elif file.stored and not ctx.store.exists(file.sha256):
            raise UploadIncomplete(f"What was sent of {file.path} is gone.")


def _screened(
    ctx: Context, row: ContributionRow, given: _Given, renewal: leases.Renewal
) -> Screening:
    with ExitStack() as stack:
        alive = renewal.alive
        sources = bases.update_sources(ctx, stack, row.encoding, row.files, alive)
        base = stack.enter_context(bases.open_weights(ctx, given.manifest.files, alive))
        return screen(
            Encoded(row.encoding, sources, row.frozen),
            base,
            renewal,
            past=given.past,
            parameters=given.parameters,
            key=screening_key(ctx),
            executor=executor_of(ctx),
        )


def _decide(ctx: Context, contribution: str, lease: leases.Lease, outcome: _Outcome) -> None:
    try:
        with ctx.database.write() as session:
            leases.check(session, lease)
            _write_verdict(ctx, session, _row(session, contribution), outcome)
            fault_point(ctx.settings, "screening.deciding")
    except IntegrityError:
        # The same weights were accepted by another worker between our look and our write.
        with ctx.database.write() as session:
            leases.check(session, lease)
            _write_verdict(ctx, session, _row(session, contribution), outcome)


def _write_verdict(ctx: Context, session: Session, row: ContributionRow, outcome: _Outcome) -> None:
    now = ctx.now()
    round_row = contributions.lock_round(session, row)
    if row.state != ContributionState.COMPLETED:
        return  # Taken back meanwhile, or refused with its round.
    found = _compared(session, row, outcome)
    row.findings = [finding.model_dump(mode="json") for finding in found.findings]
    verdict = found.verdict
    if verdict == "reject":
        hint = SEND_AGAIN if outcome.again else found.hint
        reason = _reason(found, verdict)
        contributions.reject(session, now, row, reason, hint, again=outcome.again)
    elif (late := contributions.why_too_late(session, row, round_row)) is not None:
        contributions.reject(session, now, row, late.message, late.hint)
    elif verdict == "quarantine":
        _hold(session, now, row, found)
    else:
        contributions.accept(session, now, row, round_row, **_kept(found))
    keep(session, WorkTimed.SCREENING, row.model_id, row.state, ctx.seconds() - outcome.began)


def _compared(session: Session, row: ContributionRow, outcome: _Outcome) -> Screening:
    """
    Compare it with what has come since its screening began, too.

    Under the round's lock: of two copies that were screened at once the second finds the first.
    """
    found, measures = outcome.screening, outcome.screening.measures
    if measures is None:
        return found
    found = found.beside(past_of(session, row, outcome.past))
    same = _duplicate(session, row, measures)
    # Of the same weights it says the same once more.
    others = [one for one in found.findings if same.verdict == "pass" or one.check != COPIES]
    return replace(found, findings=[*others, same])


def _reason(found: Screening, verdict: Verdict) -> str:
    return "; ".join(one.message for one in found.findings if one.verdict == verdict)


def _hold(session: Session, now: datetime, row: ContributionRow, found: Screening) -> None:
    """Put it into quarantine; what else it may be is for a maintainer to say."""
    contributions.move(
        session,
        now,
        row,
        ContributionState.QUARANTINED,
        reason=_reason(found, "quarantine"),
        hint=WAIT,
        **_kept(found),
    )


def _kept(found: Screening) -> dict[str, Any]:
    """Return the columns that tell later ones what this is like."""
    measures = found.measures
    assert measures is not None, "only what was measured gets so far"
    return {
        "tensors_digest": measures.digest,
        "measures": measures.to_json(),
        "sketch": measures.sketch.to_text(),
    }


def _duplicate(session: Session, row: ContributionRow, measures: Measures) -> Finding:
    """Find the same tensors in another file: another order, another header, another sender."""
    other = session.scalar(
        select(ContributionRow).where(
            ContributionRow.model_id == row.model_id,
            ContributionRow.tensors_digest == measures.digest,
            ContributionRow.number != row.number,
            held(),
        )
    )
    if other is None:
        return Finding(check="duplicate", verdict="pass", message="not contributed before")
    message = contributions.already_contributed(other).message
    return Finding(check="duplicate", verdict="reject", message=message)


def _row(session: Session, contribution: str) -> ContributionRow:
    return session.scalars(select(ContributionRow).where(ContributionRow.id == contribution)).one()


def _base_manifest(session: Session, row: ContributionRow) -> Manifest:
    base = session.scalars(
        select(BaseRow).where(BaseRow.model_id == row.model_id, BaseRow.number == row.base_number)
    ).one()
    return manifest_of(base)
