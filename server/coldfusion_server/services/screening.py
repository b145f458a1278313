"""Screening on the server: the upload becomes an object, which is screened; the verdict is kept."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta

import structlog
from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import BaseRow, ContributionRow, RoundRow
from coldfusion_server.services import bases, contributions, garbage, leases, uploads
from coldfusion_server.services.context import Context
from coldfusion_server.services.heartbeat import WorkStopped
from coldfusion_server.services.lookup import manifest_of
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import (
    ColdFusionError,
    DigestMismatch,
    LeaseLost,
    StateConflict,
    UploadIncomplete,
)
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening.screen import Encoded, Screening, screen

log = structlog.get_logger(__name__)

SEND_AGAIN = "Run the same command again; it sends the bytes once more."
TELL_MAINTAINERS = "Tell its maintainers, and run the same command again when they have mended it."
# Five minutes in all.
MAX_TRIES = 5
RETRY_SECONDS = 10.0


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
    try:
        if tries > MAX_TRIES:
            _give_up(ctx, contribution, lease)
        else:
            _screen(ctx, contribution, lease)
    except (StateConflict, LeaseLost) as error:
        log.info("screening overtaken", contribution=contribution, why=error.message)
    except ColdFusionError as error:
        # It waits for the store to come back, which is no fault that it has brought out.
        log.error("screening failed", contribution=contribution, why=error.message)
        _put_off(ctx, contribution, tries - 1, 0)
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
                .order_by(ContributionRow.completed_at)
            )
        )


def _begin(ctx: Context, contribution: str, lease: leases.Lease) -> int:
    """Count a try before it begins, since it may end the process; return how many there are."""
    with ctx.database.write() as session:
        leases.check(session, lease)
        row = _row(session, contribution)
        row.attempts += 1
        return row.attempts


def _put_off(ctx: Context, contribution: str, tries: int, seconds: float) -> None:
    with ctx.database.write() as session:
        row = _row(session, contribution)
        row.attempts, row.retry_at = tries, ctx.now() + timedelta(seconds=seconds)


def _give_up(ctx: Context, contribution: str, lease: leases.Lease) -> None:
    with ctx.database.write() as session:
        leases.check(session, lease)
        row = _row(session, contribution)
        contributions.lock_round(session, row)
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
        manifest = _base_manifest(session, row)
    renewal = leases.Renewal(ctx, lease)
    try:
        _store(ctx, row, renewal)
    except (DigestMismatch, UploadIncomplete) as error:
        lost = Finding(check="digest", verdict="reject", message=error.message)
        _decide(ctx, contribution, lease, Screening([lost], None), again=True)
    else:
        _decide(ctx, contribution, lease, _screened(ctx, row, manifest, renewal))
    with ctx.database.read() as session:
        row = _row(session, contribution)
        contributions.load_files(row)
    _clear_away(ctx, row)


def _clear_away(ctx: Context, row: ContributionRow) -> None:
    """Remove uploads and what was rejected; garbage collection does it where the store is away."""
    try:
        for key in uploads.upload_keys(row):
            ctx.store.discard_upload(key)
        if row.state == ContributionState.REJECTED:
            garbage.remove_rejected(ctx, row)
    except ColdFusionError as error:
        log.warning("bytes stay for now", contribution=row.id, why=error.message)


def _store(ctx: Context, row: ContributionRow, renewal: leases.Renewal) -> None:
    """
    Make objects of the uploads, also where the store has an object of that digest.

    Digests are public: who names one has to send its bytes, or anybody could contribute weights
    that he never had.
    """
    for index, file in enumerate(row.files):
        if not file.here:
            ctx.store.adopt(uploads.upload_key(row.id, index), file.sha256, renewal)


def _screened(
    ctx: Context, row: ContributionRow, manifest: Manifest, renewal: leases.Renewal
) -> Screening:
    with ExitStack() as stack:
        alive = renewal.alive
        sources = bases.update_sources(ctx, stack, row.encoding, row.files, alive)
        base = stack.enter_context(bases.open_weights(ctx, manifest.files, alive))
        return screen(Encoded(row.encoding, sources, row.frozen), base, renewal)


def _decide(
    ctx: Context, contribution: str, lease: leases.Lease, outcome: Screening, *, again: bool = False
) -> None:
    try:
        with ctx.database.write() as session:
            leases.check(session, lease)
            _write_verdict(ctx, session, _row(session, contribution), outcome, again)
    except IntegrityError:
        # The same weights were accepted by another worker between our look and our write.
        with ctx.database.write() as session:
            leases.check(session, lease)
            _write_verdict(ctx, session, _row(session, contribution), outcome, again)


def _write_verdict(
    ctx: Context, session: Session, row: ContributionRow, outcome: Screening, again: bool
) -> None:
    now = ctx.now()
    round_row = contributions.lock_round(session, row)
    findings = [*outcome.findings, *_duplicate(session, row, outcome.digest)]
    row.findings = [finding.model_dump(mode="json") for finding in findings]
    rejections = [finding for finding in findings if finding.verdict == "reject"]
    if rejections:
        reason = "; ".join(finding.message for finding in rejections)
        hint = SEND_AGAIN if again else outcome.hint
        contributions.reject(session, now, row, reason, hint, again=again)
    elif round_row.state != RoundState.OPEN:
        late = contributions.outdated(row.base_number, round_row)
        contributions.reject(session, now, row, late.message, late.hint)
    else:
        _accept(ctx, session, row, round_row, outcome)


def _accept(
    ctx: Context,
    session: Session,
    row: ContributionRow,
    round_row: RoundRow,
    outcome: Screening,
) -> None:
    taken = session.scalars(
        select(ContributionRow.position).where(
            ContributionRow.round_id == round_row.id, ContributionRow.position.is_not(None)
        )
    ).all()
    contributions.move(
        session,
        ctx.now(),
        row,
        ContributionState.ACCEPTED,
        decided_at=ctx.now(),
        tensors_digest=outcome.digest,
        position=max((number for number in taken if number is not None), default=0) + 1,
    )


def _duplicate(session: Session, row: ContributionRow, digest: str | None) -> list[Finding]:
    """Find the same tensors in another file: another order, another header, another sender."""
    if digest is None:
        return []
    other = session.scalar(
        select(ContributionRow).where(
            ContributionRow.model_id == row.model_id,
            ContributionRow.tensors_digest == digest,
            ContributionRow.number != row.number,
            ContributionRow.state.in_((ContributionState.ACCEPTED, ContributionState.FUSED)),
        )
    )
    if other is None:
        return [Finding(check="duplicate", verdict="pass", message="not contributed before")]
    message = contributions.already_contributed(other).message
    return [Finding(check="duplicate", verdict="reject", message=message)]


def _row(session: Session, contribution: str) -> ContributionRow:
    return session.scalars(select(ContributionRow).where(ContributionRow.id == contribution)).one()


def _base_manifest(session: Session, row: ContributionRow) -> Manifest:
    base = session.scalars(
        select(BaseRow).where(BaseRow.model_id == row.model_id, BaseRow.number == row.base_number)
    ).one()
    return manifest_of(base)
