"""
What waits for the Repository's own evaluator, and how often it began with each.

First comes what a gate by its suite waits for, the round's base and its candidates; then what
maintainers compare before they decide on a replay, its candidates and the bases that those stand in
for; then the bases that it has not measured yet; then single contributions, where policies ask for
that.

A try is counted before it begins, since it may end the process, and so is the pause after it. Who
is told to stop gives the try back. After some of them a base or a candidate is left, with an event
that says why. Of a measured base that was asked for once more a row says so until that is done.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy import ColumnElement, Select, String, and_, cast, delete, func, or_, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import (
    BaseRow,
    CandidateRow,
    EvaluationRow,
    EvaluationTryRow,
    ModelRow,
    RoundRow,
    SuiteRow,
)
from coldfusion_server.events import outbox
from coldfusion_server.services import (
    candidates,
    fuse_inputs,
    gating,
    leases,
    rounds,
    usefulness,
)
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_base
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.rounds.gate import too_long
from coldfusion_shared.schemas.evaluations import ProtocolName

log = structlog.get_logger(__name__)

# Begins the names of rows that say of a measured base that it is wanted once more.
AGAIN = "again:"
# Ten minutes in all, and what the tries themselves take.
MAX_TRIES = 4
RETRY_SECONDS = 30.0
RETRY_GROWTH = 4
DIED = "The evaluator's process ended each time; perhaps its memory did not suffice."


@dataclass(frozen=True)
class Subject:
    """
    What is measured: a base, a candidate, or a contribution alone.

    Attributes:
        base: the base's id.
        candidate: the candidate's.
        contribution: the contribution's.
    """

    base: int | None = None
    candidate: str | None = None
    contribution: str | None = None

    @property
    def name(self) -> str:
        """What tells it from all others."""
        return self.candidate or self.contribution or str(self.base)


@dataclass(frozen=True)
class Measurement:
    """
    What is measured of everything.

    Attributes:
        suite: its name.
        digest: of the suite with all its data.
        protocol: how it is measured.
        seeds: with how many seeds, at least.
        evaluator: the contributor's id under which the Repository's own evaluator signs; what
            others have measured says nothing of how they did it.
    """

    suite: str
    digest: str
    protocol: ProtocolName
    seeds: int
    evaluator: int

    def key(self, subject: Subject) -> str:
        """Return the key of the lease under which something is measured."""
        return f"evaluation:{subject.name}:{self.protocol}:{self.digest}"


@dataclass(frozen=True)
class EvaluationFailure:
    """
    A base that the Repository's own evaluator could not measure.

    Attributes:
        version: which base.
        suite: with which suite.
        protocol: by which protocol.
        reason: why the last try failed.
        left: whether it is tried no more.
    """

    version: str
    suite: str
    protocol: str
    reason: str
    left: bool


def waiting(ctx: Context, what: Measurement) -> list[Subject]:
    """Return what is to be measured so, and may be tried now, the most urgent first."""
    with ctx.database.read() as session:
        measured = _measured(session, what)
        first = [
            one
            for one in dict.fromkeys([*_for_gates(session, what), *_for_replays(session, measured)])
            if one.name not in measured and _may_be_tried(ctx, session, what, one)
        ]
        bases = [Subject(base=base) for base in session.scalars(_bases(ctx, what))]
        last = [one for one in _alone(session, what) if _may_be_tried(ctx, session, what, one)]
    known = measured | {one.name for one in first}
    return [*first, *(one for one in bases if one.name not in known), *last]


def begin(ctx: Context, what: Measurement, subject: Subject, lease: leases.Lease) -> int | None:
    """Count a try and return how many there are; null where nobody waits for it any more."""
    with ctx.database.write() as session:
        leases.check(session, lease)
        if subject.name in _measured(session, what) or _is_gone(session, subject):
            return None
        row = _row(session, what, subject)
        row.attempts += 1
        # If this try ends the process, the next one is not to follow at once.
        row.retry_at = ctx.now() + _pause(row.attempts)
        row.reason = None
        return row.attempts


def end(ctx: Context, what: Measurement, subject: Subject) -> None:
    """Forget the tries of what was measured, or is gone."""
    with ctx.database.write() as session:
        session.execute(
            delete(EvaluationTryRow).where(
                EvaluationTryRow.subject.in_((subject.name, f"{AGAIN}{subject.name}")),
                _tried(what),
            )
        )


def fail(
    ctx: Context,
    what: Measurement,
    subject: Subject,
    lease: leases.Lease,
    tries: int,
    reason: str,
) -> None:
    """Try again later, or leave it; raises `LeaseLost`."""
    if tries >= MAX_TRIES:
        leave(ctx, what, subject, lease, reason)
        return
    with ctx.database.write() as session:
        leases.check(session, lease)
        row = _row(session, what, subject)
        row.attempts, row.retry_at, row.reason = tries, ctx.now() + _pause(tries), reason
    again_in = _pause(tries).total_seconds()
    log.error("evaluation failed", of=subject.name, tries=tries, again_in=again_in, why=reason)


def give_back(
    ctx: Context,
    what: Measurement,
    subject: Subject,
    lease: leases.Lease,
    tries: int,
    seconds: float = 0.0,
) -> None:
    """
    Let the last of `tries` count for nothing: it was no fault of the model that it came to no end.

    Args:
        ctx: the service's surroundings.
        what: is measured.
        subject: of which.
        lease: under which it was tried.
        tries: as `begin` has counted them.
        seconds: how long it waits for the next one.

    Raises:
        LeaseLost: another one is at it.
    """
    with ctx.database.write() as session:
        leases.check(session, lease)
        row = _row(session, what, subject)
        row.attempts, row.retry_at = tries - 1, ctx.now() + timedelta(seconds=seconds)


def leave(
    ctx: Context, what: Measurement, subject: Subject, lease: leases.Lease, reason: str | None
) -> None:
    """Try no more, and say why; null: its process died each time. Raises `LeaseLost`."""
    with ctx.database.write() as session:
        leases.check(session, lease)
        row = _row(session, what, subject)
        row.attempts, row.reason = MAX_TRIES + 1, reason
        model, named = _told(session, subject)
        told = reason or DIED
        data = {**named, "suite": what.suite, "protocol": what.protocol, "reason": told}
        outbox.append(session, ctx.now(), "evaluation.failed", model, data)
    log.error("evaluation given up", model=model, why=told, **named)


def ask_again(session: Session, base: BaseRow, evaluator: int) -> bool | None:
    """
    Let a base be measured once more in each way in which it was, and tried again where that failed.

    Args:
        session: the transaction.
        base: which.
        evaluator: the contributor's id under which the Repository's own evaluator signs.

    Returns:
        Whether that is new; null: it was neither measured nor tried yet.
    """
    measured = select(EvaluationRow.suite_digest, EvaluationRow.protocol).where(
        EvaluationRow.base_id == base.id,
        EvaluationRow.contributor_id == evaluator,
        EvaluationRow.suite_digest.is_not(None),
    )
    tried = select(EvaluationTryRow).where(EvaluationTryRow.subject == Subject(base=base.id).name)
    done = {(str(digest), protocol) for digest, protocol in session.execute(measured)}
    rows = {(row.suite_digest, row.protocol): row for row in session.scalars(tried)}
    changed = False
    for key in sorted(done | rows.keys()):
        changed |= _mark(session, base, key) if key in done else False
        row = rows.get(key)
        if row is not None and (row.reason is not None or row.attempts > MAX_TRIES):
            row.attempts, row.retry_at, row.reason = 0, None, None
            changed = True
    return changed if done or rows else None


def _mark(session: Session, base: BaseRow, key: tuple[str, str]) -> bool:
    """Write down that a measured base is wanted once more; return whether that is new."""
    digest, protocol = key
    subject = f"{AGAIN}{base.id}"
    if session.get(EvaluationTryRow, (subject, digest, protocol)) is not None:
        return False
    session.add(
        EvaluationTryRow(subject=subject, suite_digest=digest, protocol=protocol, attempts=0)
    )
    return True


def forget(ctx: Context, what: Measurement) -> None:
    """Forget all tries, so that what was left is tried again."""
    with ctx.database.write() as session:
        session.execute(
            delete(EvaluationTryRow).where(
                _tried(what), EvaluationTryRow.subject.not_like(f"{AGAIN}%")
            )
        )


def failures(
    session: Session, model: ModelRow, numbers: Collection[int]
) -> list[EvaluationFailure]:
    """Return what came to no score of those of the bases `numbers`, newest bases first."""
    # Two names may stand for one suite.
    name = (
        select(func.min(SuiteRow.name))
        .where(SuiteRow.digest == EvaluationTryRow.suite_digest)
        .scalar_subquery()
    )
    query = (
        select(EvaluationTryRow, BaseRow.number, name)
        .join(BaseRow, cast(BaseRow.id, String) == EvaluationTryRow.subject)
        .where(
            BaseRow.model_id == model.id,
            BaseRow.number.in_(numbers),
            or_(EvaluationTryRow.attempts > MAX_TRIES, EvaluationTryRow.reason.is_not(None)),
        )
        .order_by(BaseRow.number.desc(), EvaluationTryRow.protocol, EvaluationTryRow.suite_digest)
    )
    return [
        EvaluationFailure(
            version=f"v{number}",
            suite=suite,
            protocol=row.protocol,
            reason=row.reason or DIED,
            left=row.attempts > MAX_TRIES,
        )
        for row, number, suite in session.execute(query)
    ]


def _for_gates(session: Session, what: Measurement) -> Iterator[Subject]:
    """Yield what gates by this suite wait for: each round's base, then its candidates."""
    if what.protocol != gating.PROTOCOL:
        return
    query = select(RoundRow).where(RoundRow.state == RoundState.EVALUATING)
    for row in session.scalars(query.order_by(RoundRow.id)):
        model = session.get_one(ModelRow, row.model_id)
        gate = rounds.policy_in_force(model, row).gate
        # By its digest: a suite may have several names.
        digest = session.scalar(select(SuiteRow.digest).where(SuiteRow.name == gate.suite))
        if digest != what.digest:
            continue
        base = fuse_inputs.base_numbered(session, model, row.base_number)
        yield Subject(base=base.id)
        for candidate in candidates.of_round(session, row):
            if too_long(gate, candidate.relative_norm) is None:
                yield Subject(candidate=candidate.id)


def _for_replays(session: Session, measured: Collection[str]) -> Iterator[Subject]:
    """Yield what replays are decided by: each base that is fused again, and what stands in."""
    # Manifests are read of those alone that are to be measured: this is asked all the time.
    for candidate in session.scalars(
        candidates.in_replays().where(CandidateRow.id.not_in(measured))
    ):
        model = session.get_one(ModelRow, candidate.model_id)
        try:
            replaced = candidates.compared_with(candidates.manifest_of(candidate))
        except ValueError:
            # Damaged in the database: garbage collection tells, and the others are measured.
            continue
        yield Subject(base=find_base(session, model, replaced).id)
        yield Subject(candidate=candidate.id)


def _alone(session: Session, what: Measurement) -> Iterator[Subject]:
    """Yield the contributions that policies want to have measured alone by this suite."""
    if what.protocol == gating.PROTOCOL:
        for contribution in usefulness.waiting(session, what.digest):
            yield Subject(contribution=contribution)


def _bases(ctx: Context, what: Measurement) -> Select[int]:
    """Return the query of the bases that may be tried now, newest first."""
    tries = and_(EvaluationTryRow.subject == cast(BaseRow.id, String), _tried(what))
    return (
        select(BaseRow.id)
        .outerjoin(EvaluationTryRow, tries)
        .where(
            or_(EvaluationTryRow.attempts.is_(None), EvaluationTryRow.attempts <= MAX_TRIES),
            or_(EvaluationTryRow.retry_at.is_(None), EvaluationTryRow.retry_at <= ctx.now()),
        )
        .order_by(BaseRow.id.desc())
    )


def _may_be_tried(ctx: Context, session: Session, what: Measurement, subject: Subject) -> bool:
    row = session.get(EvaluationTryRow, (subject.name, what.digest, what.protocol))
    if row is None:
        return True
    return row.attempts <= MAX_TRIES and (row.retry_at is None or row.retry_at <= ctx.now())


def _measured(session: Session, what: Measurement) -> set[str]:
    """Return what the Repository's own evaluator has measured so, and need not once more."""
    rows = session.execute(
        select(EvaluationRow.base_id, EvaluationRow.candidate_id, EvaluationRow.seeds).where(
            EvaluationRow.contributor_id == what.evaluator,
            EvaluationRow.suite_digest == what.digest,
            EvaluationRow.protocol == what.protocol,
        )
    )
    found: set[str] = set()
    for base, candidate, seeds in rows:
        if len(seeds or []) >= what.seeds:
            # A candidate's scores are its base's, too, once it is one.
            found |= {str(one) for one in (base, candidate) if one is not None}
    asked = select(EvaluationTryRow.subject).where(
        _tried(what), EvaluationTryRow.subject.like(f"{AGAIN}%")
    )
    return found.difference(name.removeprefix(AGAIN) for name in session.scalars(asked))


def _is_gone(session: Session, subject: Subject) -> bool:
    """Return whether nobody waits for it: a candidate that is a base by now, say, or given up."""
    if subject.contribution is not None:
        return usefulness.is_gone(usefulness.find(session, subject.contribution))
    if subject.candidate is None:
        return False
    row = session.get_one(CandidateRow, subject.candidate)
    return row.given_up or row.base_id is not None


def check_waited_for(session: Session, subject: Subject) -> None:
    """Raise `CandidateNotFound` where it is a candidate that was given up."""
    if subject.candidate is None:
        return
    row = session.get_one(CandidateRow, subject.candidate)
    if row.given_up:
        raise candidates.not_waiting(session.get_one(ModelRow, row.model_id), row.id)


def _told(session: Session, subject: Subject) -> tuple[str, dict[str, str]]:
    """Return of which model it is, and what events call it."""
    if subject.contribution is not None:
        row = usefulness.find(session, subject.contribution)
        return row.model.name, {"contribution": row.id}
    if subject.candidate is not None:
        found = session.get_one(CandidateRow, subject.candidate)
        named = {"candidate": found.id}
        if found.replay_id is not None:
            named["replay"] = found.replay_id
        return session.get_one(ModelRow, found.model_id).name, named
    base = session.get_one(BaseRow, subject.base)
    return session.get_one(ModelRow, base.model_id).name, {"version": f"v{base.number}"}


def _pause(tries: int) -> timedelta:
    """Return how long the next try waits after so many; what is to be left waits no more."""
    seconds = RETRY_SECONDS * RETRY_GROWTH ** (tries - 1) if tries < MAX_TRIES else 0.0
    return timedelta(seconds=seconds)


def _tried(what: Measurement) -> ColumnElement[bool]:
    return and_(
        EvaluationTryRow.suite_digest == what.digest, EvaluationTryRow.protocol == what.protocol
    )


def _row(session: Session, what: Measurement, subject: Subject) -> EvaluationTryRow:
    row = session.get(EvaluationTryRow, (subject.name, what.digest, what.protocol))
    if row is None:
        row = EvaluationTryRow(
            subject=subject.name, suite_digest=what.digest, protocol=what.protocol, attempts=0
        )
        session.add(row)
    return row
