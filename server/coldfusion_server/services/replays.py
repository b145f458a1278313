"""Replays: asked for, shown, given up. `advance` is the only writer of a replay's state."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime
from statistics import fmean
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import BaseRow, CandidateRow, EvaluationRow, ModelRow, ReplayRow
from coldfusion_server.events import audit, outbox
from coldfusion_server.services import candidates, leases, replay_course, rounds
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_model, searchable
from coldfusion_server.services.references import refer
from coldfusion_server.services.replay_course import Course
from coldfusion_server.services.swapping import swap
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared.errors import ReplayNotFound, StateConflict
from coldfusion_shared.replays import ENDS, ReplayState, check_transition
from coldfusion_shared.schemas.replays import Replay, ReplayRequest, ReplayStep
from coldfusion_shared.schemas.tokens import Role

_S = ReplayState


def ask(ctx: Context, name: str, request: ReplayRequest, principal: Principal | None) -> Replay:
    """
    Have history fused again without some contributions; a worker does it, nobody sees it as a base.

    What was taken back meanwhile of all that would be fused again is left out, too.

    Raises:
        InvalidRequest: a contribution is not in the head's line, or in the base that stays; or
            nothing is left to fuse; or what is left cannot be fused again, for it was erased.
        BaseNotFound: the head does not come from the base that is to stay.
        StateConflict: the very same replay is there already.
    """
    who = require(principal, Role.MAINTAINER, name)
    without = set(request.without)
    with ctx.database.write() as session:
        # What it fuses again is needed from now on.
        refer(session)
        model = find_model(session, name, principal)
        # Of two that ask for the same at once, one comes second; and the head stands still.
        rounds.newest(session, model)
        line = replay_course.line_of(session, model, model.current)
        start = replay_course.starting_point(line, sorted(without), request.start)
        gone = replay_course.withdrawn(session, model)
        course = replay_course.course_of(line, start, without)
        without |= {item.id for item in course.needed(without) if item.id in gone}
        course = replay_course.course_of(line, start, without)
        replay_course.check_something(course, model.name)
        replay_course.check_stored(session, model, course, without)
        row = ReplayRow(
            id=secrets.token_hex(8),
            model_id=model.id,
            state=_S.QUEUED,
            without=sorted(without),
            from_number=int(start[1:]),
            head_number=model.current,
            reason=request.reason,
            contributor_id=who.contributor_id or None,
            created_at=ctx.now(),
        )
        _check_new(session, row)
        session.add(row)
        session.flush()
        _tell(session, ctx.now(), model, row)
        note(session, ctx.now(), model, row, who, without=row.without)
        return to_schema(session, model, row)


def _check_new(session: Session, new: ReplayRow) -> None:
    query = select(ReplayRow).where(
        ReplayRow.model_id == new.model_id, ReplayRow.state.not_in(ENDS)
    )
    for row in session.scalars(query):
        same = (row.from_number, row.head_number) == (new.from_number, new.head_number)
        if same and row.without == new.without:
            raise StateConflict(
                f"The same replay is there already: {row.id} is {row.state}.",
                hint="Look at it with --show, or give it up with --discard.",
            )


def get_replay(ctx: Context, name: str, replay: str, principal: Principal | None) -> Replay:
    """Return one replay; for maintainers. Raises `ReplayNotFound`."""
    require(principal, Role.MAINTAINER, name)
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        return to_schema(session, model, find_replay(session, model, replay))


def list_replays(ctx: Context, name: str, principal: Principal | None) -> list[Replay]:
    """Return the model's replays, newest first; for maintainers."""
    require(principal, Role.MAINTAINER, name)
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        query = select(ReplayRow).where(ReplayRow.model_id == model.id)
        rows = session.scalars(query.order_by(ReplayRow.created_at.desc(), ReplayRow.id))
        return [to_schema(session, model, row) for row in rows]


def discard(ctx: Context, name: str, replay: str, principal: Principal | None) -> Replay:
    """
    Give a replay up: its bases go with the next garbage collection, and a worker stops.

    Raises:
        ReplayNotFound: there is none of that id.
        StateConflict: it was published, or given up before.
    """
    who = require(principal, Role.MAINTAINER, name)
    with ctx.database.write() as session:
        model = find_model(session, name, principal)
        row = locked(session, find_replay(session, model, replay).id)
        check_open(row)
        give_up(session, ctx.now(), row)
        note(session, ctx.now(), model, row, who)
        return to_schema(session, model, row)


def give_up(
    session: Session,
    now: datetime,
    row: ReplayRow,
    lease: leases.Lease | None = None,
    failure: str | None = None,
) -> None:
    """Discard a replay in the caller's transaction and let the objects of its bases go."""
    # Before the event, as whoever keeps their scores does.
    session.execute(
        update(CandidateRow).where(CandidateRow.replay_id == row.id).values(given_up=True)
    )
    advance(session, now, row, _S.DISCARDED, lease, failure=failure)


def check_open(row: ReplayRow) -> None:
    """Raise `StateConflict` where a replay was decided on."""
    if row.state in ENDS:
        raise StateConflict(
            f"Replay {row.id} was {row.state} already.",
            hint="A new one can be asked for, with --without.",
        )


def find_replay(session: Session, model: ModelRow, replay: str) -> ReplayRow:
    """Return the row of a replay; raises `ReplayNotFound`."""
    row = session.get(ReplayRow, searchable(replay))
    if row is None or row.model_id != model.id:
        raise ReplayNotFound(
            f"{model.name} has no replay {replay[:40]!r}.",
            hint=f"List them with: coldfusion-server model replay {model.name}",
        )
    return row


def locked(session: Session, replay: str) -> ReplayRow:
    """Return the replay as it is behind its lock, which comes after a lease, before any round."""
    query = select(ReplayRow).where(ReplayRow.id == replay).with_for_update()
    return session.scalars(query.execution_options(populate_existing=True)).one()


def advance(
    session: Session,
    now: datetime,
    row: ReplayRow,
    target: ReplayState,
    lease: leases.Lease | None = None,
    **changes: Any,
) -> None:
    """
    Take a replay to `target` in the caller's transaction, and tell so.

    Args:
        session: the transaction.
        now: the time.
        row: the replay as the caller knows it.
        target: where to.
        lease: what the caller holds, for all that is done by workers.
        changes: further columns to set.

    Raises:
        InvalidTransition: the table of transitions does not have it.
        LeaseLost: another worker has taken over.
        StateConflict: the replay is not in the state any more that the caller knows.
    """
    check_transition(ReplayState(row.state), target)
    if lease is not None:
        leases.check(session, lease)
    if target in ENDS:
        changes["finished_at"] = now
    swap(session, row, target, f"Replay {row.id}", **changes)
    _tell(session, now, session.get_one(ModelRow, row.model_id), row)


def _tell(session: Session, now: datetime, model: ModelRow, row: ReplayRow) -> None:
    data = {
        "replay": row.id,
        "state": ReplayState(row.state).value,
        "without": row.without,
        "start": f"v{row.from_number}",
        "head": f"v{row.head_number}",
        "reason": row.failure or row.reason,
    }
    outbox.append(session, now, f"replay.{data['state']}", model.name, data)


def note(
    session: Session, now: datetime, model: ModelRow, row: ReplayRow, who: Principal, **data: Any
) -> None:
    """Write into the audit log to which state somebody has taken a replay."""
    action = f"replay.{ReplayState(row.state).value}"
    audit.note(
        session, now, who, action, model=model.name, subject=row.id, reason=row.reason, **data
    )


def course(session: Session, model: ModelRow, row: ReplayRow) -> Course:
    """Return what the replay fuses again."""
    line = replay_course.line_of(session, model, row.head_number)
    return replay_course.course_of(line, f"v{row.from_number}", set(row.without))


def steps(session: Session, row: ReplayRow, *, lock: bool = False) -> list[CandidateRow]:
    """Return the bases that are fused again so far, in order; none once it is discarded."""
    query = select(CandidateRow).where(CandidateRow.replay_id == row.id, ~CandidateRow.given_up)
    query = query.order_by(CandidateRow.step)
    return list(session.scalars(query.with_for_update() if lock else query))


def to_schema(session: Session, model: ModelRow, row: ReplayRow) -> Replay:
    """Return what the API shows of a replay."""
    way = course(session, model, row)
    return Replay(
        id=row.id,
        model=model.name,
        state=ReplayState(row.state),
        without=row.without,
        start=f"v{row.from_number}",
        head=f"v{row.head_number}",
        skipped=[manifest.version for manifest in way.skipped],
        steps=[_step(session, model, found) for found in steps(session, row)],
        total=len(way.again),
        reason=row.reason,
        failure=row.failure,
        by=None if row.contributor is None else row.contributor.name,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


def _step(session: Session, model: ModelRow, row: CandidateRow) -> ReplayStep:
    shown = candidates.to_schema(session, model, row)
    replaces = shown.manifest.replays
    assert replaces is not None, "a replay's base stands in for another one"
    published = None if row.base_id is None else session.get_one(BaseRow, row.base_id)
    old, new = _side_by_side(session, model, int(replaces[1:]), row)
    return ReplayStep(
        replaces=replaces,
        candidate=shown,
        published=None if published is None else f"v{published.number}",
        old_score=None if old is None else _average(old),
        new_score=None if new is None else _average(new),
        suite=None if new is None else new.suite,
    )


def _side_by_side(
    session: Session, model: ModelRow, number: int, row: CandidateRow
) -> tuple[EvaluationRow | None, EvaluationRow | None]:
    """Return the newest evaluations of base `number` and of the candidate that can be compared."""
    of_base = select(EvaluationRow).join(BaseRow, BaseRow.id == EvaluationRow.base_id)
    of_base = of_base.where(BaseRow.model_id == model.id, BaseRow.number == number)
    old = _by_suite(session.scalars(of_base.order_by(EvaluationRow.id)))
    # What is measured after its publication is the base's alone.
    ours = EvaluationRow.candidate_id == row.id
    if row.base_id is not None:
        ours = EvaluationRow.base_id == row.base_id
    of_candidate = select(EvaluationRow).where(ours)
    for new in session.scalars(of_candidate.order_by(EvaluationRow.id.desc())):
        if _measure(new) in old:
            return old[_measure(new)], new
    return None, None


def _by_suite(rows: Iterable[EvaluationRow]) -> dict[Sequence[object], EvaluationRow]:
    """Return the newest of each measure; `rows` come oldest first."""
    return {_measure(row): row for row in rows}


def _measure(row: EvaluationRow) -> Sequence[object]:
    """Return what two evaluations must have in common to be compared."""
    return (row.suite, row.suite_digest, row.protocol, row.metric, *sorted(row.scores))


def _average(row: EvaluationRow) -> float:
    return fmean(row.scores.values())
