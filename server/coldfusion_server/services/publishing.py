"""
A round's work from its closing to its end: fuse, gate, publish; or fail, and be tried again.

Each step can run twice without harm. A worker that dies loses its lease; another one goes on from
the round's state and its candidates, which are written only when all their objects are stored.
"""

from __future__ import annotations

from datetime import timedelta

import structlog
from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from coldfusion_server import tracing
from coldfusion_server.db.tables import CandidateRow, EvaluationRow, ModelRow, RoundRow
from coldfusion_server.faults import fault_point
from coldfusion_server.services import (
    bases,
    candidates,
    cards,
    closing,
    contributions,
    ending,
    fuse_inputs,
    gating,
    leases,
    measured,
    reasons,
    rounds,
    standing,
)
from coldfusion_server.services.context import Context
from coldfusion_server.services.fusing import Work, describe, fuse
from coldfusion_server.services.references import refer
from coldfusion_server.services.work_times import WorkTimed, keep
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import ColdFusionError, LeaseLost, StateConflict
from coldfusion_shared.rounds import UNDER_WAY, RoundState
from coldfusion_shared.rounds.closing import choose
from coldfusion_shared.rounds.needs import enough_left
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.gates import GateVerdict

log = structlog.get_logger(__name__)

RETRY_SECONDS = 5
MAX_RETRY_SECONDS = 600


def go_on_next(ctx: Context, holder: str) -> bool:
    """Take one round under way as far as it goes now; return whether there was one."""
    for round_id in _waiting(ctx):
        with leases.held(ctx, f"round:{round_id}", holder) as lease:
            if lease is None:
                continue
            try:
                state = _begin(ctx, round_id, lease)
            except (StateConflict, LeaseLost) as error:
                log.info("round overtaken", round=round_id, why=error.message)
            except Exception as error:
                # It has done nothing, and holds up no other work.
                _put_off(ctx, round_id, lease, _told(round_id, error))
                continue
            else:
                _try(ctx, round_id, lease, state)
            return True
    return False


def _try(ctx: Context, round_id: int, lease: leases.Lease, state: RoundState) -> None:
    try:
        _go_on(ctx, round_id, lease, state)
    except (StateConflict, LeaseLost) as error:
        log.info("round overtaken", round=round_id, why=error.message)
    except Exception as error:
        _fail(ctx, round_id, lease, _told(round_id, error))


def _told(round_id: int, error: Exception) -> ColdFusionError:
    """Return what the round says; a fault of ours is tried again later and later, too."""
    if isinstance(error, ColdFusionError):
        return error
    log.exception("round broke", round=round_id)
    return ColdFusionError(reasons.internal(error))


def _waiting(ctx: Context) -> list[int]:
    """Return the rounds with something to do; what waits for its gate says when it looks again."""
    with ctx.database.read() as session:
        return list(
            session.scalars(
                select(RoundRow.id)
                .where(
                    RoundRow.state.in_(UNDER_WAY),
                    or_(RoundRow.retry_at.is_(None), RoundRow.retry_at <= ctx.now()),
                )
                .order_by(RoundRow.id)
            )
        )


def _go_on(ctx: Context, round_id: int, lease: leases.Lease, state: RoundState) -> None:
    """Do what the round's `state` says is next, until it ends or waits for evaluations."""
    fault_point(ctx.settings, "round.begun")
    if state == RoundState.FUSING:
        with tracing.step("fuse", round=round_id):
            _fuse(ctx, round_id, lease)
        fault_point(ctx.settings, "round.evaluating")
        state = RoundState.EVALUATING
    if state == RoundState.EVALUATING:
        lost = _lost_file(ctx, round_id)
        fault_point(ctx.settings, "round.gating")
        if lost is None:
            with tracing.step("publish", round=round_id):
                _decide(ctx, round_id, lease)
        else:
            gone = ColdFusionError(f"{lost} of its candidate was stored and is gone again.")
            _fail(ctx, round_id, lease, gone, again=True)


def _begin(ctx: Context, round_id: int, lease: leases.Lease) -> RoundState:
    """Go on from the last durable step: candidates that are stored are not fused again."""
    with ctx.database.write() as session:
        row = rounds.locked(session, round_id)
        if row.state == RoundState.FAILED and row.evaluating_at is not None:
            rounds.advance(
                session, ctx.now(), row, RoundState.EVALUATING, lease, reason=None, retry_at=None
            )
        elif row.state in (RoundState.CLOSED, RoundState.FAILED):
            if not _has_enough(ctx, session, row):
                _cancel(ctx, session, row, lease)
            else:
                _begin_fuse(ctx, session, row, lease)
        return RoundState(row.state)


def _has_enough(ctx: Context, session: Session, row: RoundRow) -> bool:
    """
    Return whether the round's policy lets it go on with what nobody has taken back.

    What the policy's limits do not let in any more is left for the next round, and told why.
    """
    policy = rounds.policy_in_force(session.get_one(ModelRow, row.model_id), row)
    items = rounds.taken(session, row)
    left = [rounds.as_waiting(item) for item in items]
    choice = choose(policy, left)
    chosen = [one for one in left if one.id not in choice.kept]
    if not rounds.can_fuse(policy, [one.contributor for one in chosen]):
        return False
    if not (closing.closed_by_hand(row) or enough_left(policy, chosen)):
        return False
    for item in items:
        if item.id in choice.kept:
            closing.keep(ctx, session, item, choice.kept[item.id])
    return True


def _cancel(ctx: Context, session: Session, row: RoundRow, lease: leases.Lease) -> None:
    reason = "Contributions were withdrawn, and what was left is too little by its policy."
    ending.end_round(ctx, session, row, RoundState.CANCELLED, lease, reason=reason)


def _begin_fuse(ctx: Context, session: Session, row: RoundRow, lease: leases.Lease) -> None:
    rounds.advance(
        session,
        ctx.now(),
        row,
        RoundState.FUSING,
        lease,
        attempts=row.attempts + 1,
        fused_bytes=0,
        reason=None,
        retry_at=None,
    )


def _fuse(ctx: Context, round_id: int, lease: leases.Lease) -> None:
    """Fuse into the store, and keep the candidates."""
    began = ctx.seconds()
    with ctx.database.read() as session:
        row = session.get_one(RoundRow, round_id)
        given = fuse_inputs.of_round(session, row)
        rates = rounds.policy_in_force(session.get_one(ModelRow, row.model_id), row).line_search
    progress = _Progress(ctx, round_id, lease)
    fused = list(fuse(ctx, given, Work(progress.alive, progress.report), ctx.store, rates))
    made = [
        candidates.Made(
            manifest=describe(ctx, given, one),
            server_lr=one.plan.server_lr if rates else None,
            relative_norm=one.relative_norm,
        )
        for one in fused
    ]
    fault_point(ctx.settings, "round.fused")
    with ctx.database.write() as session:
        refer(session)
        row = rounds.locked(session, round_id)
        _check_in_hand(row, RoundState.FUSING)
        # Those of an earlier try.
        ending.give_up_candidates(session, row)
        candidates.keep(ctx, session, row, made)
        standing.keep(session, rounds.taken(session, row), fused[0].plan)
        keep(session, WorkTimed.FUSING, row.model_id, "fused", ctx.seconds() - began)
        rounds.advance(
            session,
            ctx.now(),
            row,
            RoundState.EVALUATING,
            lease,
            evaluating_at=ctx.now(),
            # The last of them was not told: renewals are seconds apart.
            fused_bytes=progress.done,
            total_bytes=progress.total,
            gate=None,
        )


def _check_in_hand(row: RoundRow, state: RoundState) -> None:
    """Raise `StateConflict` where a maintainer or a withdrawal has taken the round out of hand."""
    if row.state != state:
        raise StateConflict(f"Round {row.number} is {row.state} by now, not {state}.")


class _Progress:
    """Renews the lease while the fuse goes on, and writes how far it is."""

    def __init__(self, ctx: Context, round_id: int, lease: leases.Lease) -> None:
        self.round_id, self.done, self.total = round_id, 0, 0
        self.renewal = leases.Renewal(ctx, lease, self._write)

    def alive(self) -> None:
        self.renewal.alive()

    def report(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        if 2 * done >= total:
            fault_point(self.renewal.ctx.settings, "round.fusing")
        self.renewal.alive()

    def _write(self, session: Session, _done: int) -> None:
        written = session.execute(
            update(RoundRow)
            .where(RoundRow.id == self.round_id, RoundRow.state == RoundState.FUSING)
            .values(fused_bytes=self.done, total_bytes=self.total)
            .returning(RoundRow.id)
        ).first()
        if written is None:
            # What it fuses has changed, or nobody waits for it any more.
            raise StateConflict("The round was taken out of this worker's hands.")


def _lost_file(ctx: Context, round_id: int) -> str | None:
    """Return a file of its candidates that the store has not; nothing removes one from here on."""
    with ctx.database.read() as session:
        row = session.get_one(RoundRow, round_id)
        found = [candidates.manifest_of(one) for one in candidates.of_round(session, row)]
    for manifest in found:
        for file in (*manifest.files, *manifest.master, *manifest.optimizer_state):
            if not ctx.store.exists(file.sha256):
                return file.path
    return None


def _decide(ctx: Context, round_id: int, lease: leases.Lease) -> None:
    """Publish, reject, or say what is waited for and when to look again."""
    # Before the transaction: others would wait for the store.
    scored = _scored(ctx, round_id)
    with ctx.database.write() as session:
        refer(session)
        # First the round: a rollback locks it, too, and what it cancels is not published.
        row = rounds.locked(session, round_id)
        _check_in_hand(row, RoundState.EVALUATING)
        decision = gating.decide(ctx, session, row)
        row.gate = decision.verdict.model_dump(mode="json")
        if decision.verdict.passed is None:
            leases.check(session, lease)
            row.retry_at = decision.look_at
        elif decision.verdict.passed:
            assert decision.candidate is not None, "what passes is a candidate"
            manifest = scored.get(decision.candidate.id)
            _publish(ctx, session, row, decision.candidate, manifest, lease)
            fault_point(ctx.settings, "round.publishing")
        else:
            _reject(ctx, session, row, decision.verdict, lease)
            fault_point(ctx.settings, "round.rejecting")
    fault_point(ctx.settings, "round.ended")


def _scored(ctx: Context, round_id: int) -> dict[str, Manifest]:
    """Return the manifest of the candidate that passes, with its scores in its card, by its id."""
    with ctx.database.read() as session:
        row = session.get_one(RoundRow, round_id)
        if row.state != RoundState.EVALUATING:
            return {}
        candidate = gating.decide(ctx, session, row).candidate
        if candidate is None:
            return {}
        manifest = candidates.manifest_of(candidate)
        found = measured.of_candidate(session, candidate)
        identity = candidate.id
    return {identity: cards.with_scores(ctx, manifest, found)}


def _publish(
    ctx: Context,
    session: Session,
    row: RoundRow,
    candidate: CandidateRow,
    scored: Manifest | None,
    lease: leases.Lease,
) -> None:
    """
    Base, head, round, contributions, next round and their events: all in one transaction.

    `scored` is the candidate's manifest with its scores; null: it has passed only now.
    """
    model = session.get_one(ModelRow, row.model_id)
    manifest = scored or candidates.manifest_of(candidate)
    base = bases.add_base(ctx, session, model, manifest)
    candidate.manifest, candidate.chosen, candidate.base_id = base.manifest, True, base.id
    session.execute(
        update(EvaluationRow)
        .where(EvaluationRow.candidate_id == candidate.id)
        .values(base_id=base.id)
    )
    for item in rounds.taken(session, row):
        contributions.move(
            session,
            ctx.now(),
            item,
            ContributionState.FUSED,
            weight=_weights(manifest)[item.id],
            result_number=base.number,
        )
    ending.end_round(
        ctx, session, row, RoundState.PUBLISHED, lease, result_number=base.number, reason=None
    )
    log.info("base published", model=manifest.model, version=manifest.version)


def _weights(manifest: Manifest) -> dict[str, float | None]:
    return {item.id: item.weight for item in manifest.contributions}


def _reject(
    ctx: Context, session: Session, row: RoundRow, verdict: GateVerdict, lease: leases.Lease
) -> None:
    """Backtrack: the base stays, and what was fused is set aside until a maintainer decides."""
    reason = f"Round {row.number} was rejected by its gate: {verdict.reason}"
    for item in rounds.taken(session, row):
        contributions.move(session, ctx.now(), item, ContributionState.SET_ASIDE, reason=reason)
    ending.end_round(ctx, session, row, RoundState.REJECTED, lease, reason=verdict.reason)
    log.info("round rejected", round=row.number, why=verdict.reason)


def _put_off(ctx: Context, round_id: int, lease: leases.Lease, error: ColdFusionError) -> None:
    """Keep why a round could not even begin, and try again later, longer and longer."""
    log.error("round cannot begin", round=round_id, why=error.message)
    with ctx.database.write() as session:
        leases.check(session, lease)
        row = rounds.locked(session, round_id)
        if row.state in UNDER_WAY:
            row.attempts += 1
            row.reason, row.retry_at = error.message, ctx.now() + _wait(row.attempts)


def _wait(attempts: int) -> timedelta:
    seconds = RETRY_SECONDS * 2 ** min(30, max(0, attempts - 1))
    return timedelta(seconds=min(MAX_RETRY_SECONDS, seconds))


def _fail(
    ctx: Context, round_id: int, lease: leases.Lease, error: ColdFusionError, *, again: bool = False
) -> None:
    """Keep why it failed, and try again later, longer and longer; with `again` from the start."""
    log.error("round failed", round=round_id, why=error.message)
    with ctx.database.write() as session:
        row = rounds.locked(session, round_id)
        if row.state not in (RoundState.FUSING, RoundState.EVALUATING):
            log.info("round overtaken", round=round_id, state=row.state)
            return
        rounds.advance(
            session,
            ctx.now(),
            row,
            RoundState.FAILED,
            lease,
            attempts=row.attempts + (row.state == RoundState.EVALUATING),
            reason=error.message,
            retry_at=ctx.now() + _wait(row.attempts),
            evaluating_at=None if again else row.evaluating_at,
        )
    fault_point(ctx.settings, "round.failed")
