"""Evaluations: what evaluators measured of a base, or of a candidate."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import hypot
from statistics import fmean

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import (
    BaseRow,
    CandidateRow,
    EvaluationRow,
    ModelRow,
    RoundRow,
)
from coldfusion_server.events import audit, outbox
from coldfusion_server.services import candidates, leases, rounds, suites
from coldfusion_server.services.agreement import agreements
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_base, find_model
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.agreement import Agreement
from coldfusion_shared.schemas.evaluations import Evaluation, EvaluationReport
from coldfusion_shared.schemas.tokens import Role


@dataclass(frozen=True)
class _Subject:
    """What was measured: a base, or a candidate that has become none yet."""

    base: BaseRow | None = None
    candidate: CandidateRow | None = None

    def is_of(self) -> ColumnElement[bool]:
        """Return the condition of its evaluations."""
        if self.base is not None:
            return EvaluationRow.base_id == self.base.id
        assert self.candidate is not None, "it is one of the two"
        return EvaluationRow.candidate_id == self.candidate.id

    def is_waited_for(self) -> ColumnElement[bool]:
        """Return the condition of the rounds whose gates compare it."""
        if self.candidate is not None:
            return RoundRow.id == self.candidate.round_id
        assert self.base is not None, "it is one of the two"
        return (RoundRow.model_id == self.base.model_id) & (
            RoundRow.base_number == self.base.number
        )


# Finds what was measured, in the transaction in which its scores are kept.
_Find = Callable[[Session, ModelRow], _Subject]


def post_evaluation(
    ctx: Context,
    name: str,
    version: str,
    report: EvaluationReport,
    principal: Principal | None,
    lease: leases.Lease | None = None,
) -> tuple[Evaluation, bool]:
    """
    Keep an evaluator's scores of a base; return them, and whether they are new.

    The same report as the evaluator's last one of that suite and protocol changes nothing.

    Args:
        ctx: the service's surroundings.
        name: the model's.
        version: of the base.
        report: the scores.
        principal: who measured them.
        lease: under which they were measured, if under one.

    Raises:
        SuiteNotFound, SuiteChanged, InvalidRequest: the scores are not of the suite that they name.
        LeaseLost: another one measures the base by now.
    """

    def find(session: Session, model: ModelRow) -> _Subject:
        return _Subject(base=find_base(session, model, version))

    return _posted(ctx, name, find, report, principal, lease)


def post_of_candidate(
    ctx: Context,
    name: str,
    candidate: str,
    report: EvaluationReport,
    principal: Principal | None,
    lease: leases.Lease | None = None,
) -> tuple[Evaluation, bool]:
    """
    Keep an evaluator's scores of a candidate, as `post_evaluation` does a base's.

    They are the base's, too, once it is published.

    Raises:
        CandidateNotFound: there is none, or it has been given up.
        SuiteNotFound, SuiteChanged, InvalidRequest: the scores are not of the suite that they name.
        LeaseLost: another one measures the candidate by now.
    """

    def find(session: Session, model: ModelRow) -> _Subject:
        return _locked(session, candidates.find_candidate(session, model, candidate))

    return _posted(ctx, name, find, report, principal, lease)


def list_evaluations(
    ctx: Context, name: str, version: str, principal: Principal | None
) -> list[Evaluation]:
    """Return all evaluations of one base, oldest first."""
    with ctx.database.read() as session:
        base = find_base(session, find_model(session, name, principal), version)
        rows = session.scalars(
            select(EvaluationRow).where(EvaluationRow.base_id == base.id).order_by(EvaluationRow.id)
        )
        return [to_schema(row, base.number) for row in rows]


def list_of_candidate(
    ctx: Context, name: str, candidate: str, principal: Principal | None
) -> list[Evaluation]:
    """Return all evaluations of one candidate, oldest first; for evaluators and maintainers."""
    require(principal, Role.EVALUATOR, name)
    with ctx.database.read() as session:
        found = candidates.find_candidate(session, find_model(session, name, principal), candidate)
        rows = session.scalars(
            select(EvaluationRow)
            .where(EvaluationRow.candidate_id == found.id)
            .order_by(EvaluationRow.id)
        )
        return [to_schema(row, None) for row in rows]


def list_agreements(
    ctx: Context, name: str, version: str, principal: Principal | None
) -> list[Agreement]:
    """Return how well the evaluators of one base agree, for each suite and protocol."""
    return agreements(list_evaluations(ctx, name, version, principal))


def standard_error(scores: Mapping[str, float], errors: Mapping[str, float]) -> float | None:
    """
    Return the standard error of the scores' plain mean; null where one of theirs is not known.

    Data sets are independent of each other: sqrt(sum of squares) / number of data sets.
    """
    if scores.keys() - errors.keys():
        return None
    return hypot(*(errors[name] for name in scores)) / len(scores)


def _posted(
    ctx: Context,
    name: str,
    find: _Find,
    report: EvaluationReport,
    principal: Principal | None,
    lease: leases.Lease | None,
) -> tuple[Evaluation, bool]:
    who = require(principal, Role.EVALUATOR, name)
    try:
        return _post(ctx, name, find, report, who, lease)
    except IntegrityError:
        # The same report at the same time: the other one is there by now.
        return _post(ctx, name, find, report, who, lease)


def _post(
    ctx: Context,
    name: str,
    find: _Find,
    report: EvaluationReport,
    who: Principal,
    lease: leases.Lease | None,
) -> tuple[Evaluation, bool]:
    with ctx.database.write() as session:
        if lease is not None:
            leases.check(session, lease)
        found = find(session, find_model(session, name, who))
        suites.check_report(session, report)
        number = None if found.base is None else found.base.number
        last, before = _last_two(session, found, report, who)
        if last is not None and last.report_sha256 == _digest(report, before):
            return to_schema(last, number), False
        row = _new_row(ctx, session, found, report, who, _digest(report, last))
        kept = to_schema(row, number)
        # Before the event: whoever ends a round locks the round first and events after it.
        _wake(session, found)
        _tell(ctx, session, name, kept, found.candidate)
        _note(ctx, session, name, kept, who)
        return kept, True


def _locked(session: Session, candidate: CandidateRow) -> _Subject:
    """
    Return a candidate that nobody publishes or gives up until the transaction ends, or its base.

    Else its base would lack an evaluation that comes in while it is published.
    """
    if candidate.round_id is not None:
        # As whoever ends the round does: first the round.
        rounds.locked(session, candidate.round_id)
    session.refresh(candidate, with_for_update=True)
    if candidate.given_up:
        model = session.get_one(ModelRow, candidate.model_id)
        raise candidates.not_waiting(model, candidate.id)
    if candidate.base_id is not None:
        return _Subject(base=session.get_one(BaseRow, candidate.base_id))
    return _Subject(candidate=candidate)


def _wake(session: Session, found: _Subject) -> None:
    """Let the worker look at once at what may have waited for these scores."""
    session.execute(
        update(RoundRow)
        .where(RoundRow.state == RoundState.EVALUATING, found.is_waited_for())
        .values(retry_at=None)
    )


def _last_two(
    session: Session, found: _Subject, report: EvaluationReport, who: Principal
) -> tuple[EvaluationRow | None, EvaluationRow | None]:
    """Return the evaluator's last report of the same suite and protocol, and the one before it."""
    query = (
        select(EvaluationRow)
        .where(
            found.is_of(),
            EvaluationRow.contributor_id == who.contributor_id,
            EvaluationRow.suite == report.suite,
            # Null is to match null here.
            EvaluationRow.suite_digest.is_not_distinct_from(report.suite_digest),
            EvaluationRow.protocol == report.protocol,
            EvaluationRow.metric == report.metric,
        )
        .order_by(EvaluationRow.id.desc())
        .limit(2)
    )
    last, before = [*session.scalars(query), None, None][:2]
    return last, before


def _new_row(
    ctx: Context,
    session: Session,
    found: _Subject,
    report: EvaluationReport,
    who: Principal,
    digest: str,
) -> EvaluationRow:
    row = EvaluationRow(
        base_id=None if found.base is None else found.base.id,
        candidate_id=None if found.candidate is None else found.candidate.id,
        contributor_id=who.contributor_id,
        suite=report.suite,
        suite_digest=report.suite_digest,
        protocol=report.protocol,
        metric=report.metric,
        scores=report.scores,
        standard_errors=report.standard_errors,
        by_seed=report.by_seed,
        seeds=report.seeds,
        negative_flips=report.negative_flips,
        software=report.software,
        report_sha256=digest,
        created_at=ctx.now(),
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    return row


def _tell(
    ctx: Context, session: Session, name: str, kept: Evaluation, candidate: CandidateRow | None
) -> None:
    fields = {"version", "suite", "protocol", "average", "standard_error", "evaluator"}
    if kept.candidate is not None:
        fields.add("candidate")
    data = kept.model_dump(mode="json", include=fields)
    if candidate is not None and candidate.replay_id is not None:
        data["replay"] = candidate.replay_id
    outbox.append(session, ctx.now(), "evaluation.posted", name, data)


def _note(ctx: Context, session: Session, name: str, kept: Evaluation, who: Principal) -> None:
    """Write into the audit log what somebody has reported: a gate may decide by it."""
    if not who.token_id:
        return  # The Repository's own evaluator: nobody has decided anything.
    subject = kept.candidate or kept.version
    data = kept.model_dump(mode="json", include={"suite", "protocol", "average"})
    audit.note(session, ctx.now(), who, "evaluation.posted", model=name, subject=subject, **data)


def _digest(report: EvaluationReport, before: EvaluationRow | None) -> str:
    """Return what tells a report after the one `before`: so a correction can be taken back."""
    # What only candidates' reports have is in no digest of others, as before there were any.
    told = report.model_dump(
        mode="json", exclude=None if report.negative_flips else {"negative_flips"}
    )
    content = [told, before and before.id]
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def to_schema(row: EvaluationRow, number: int | None) -> Evaluation:
    """Return what the API shows of an evaluation of base v`number`; null: of a candidate."""
    return Evaluation(
        version=None if number is None else f"v{number}",
        candidate=row.candidate_id,
        suite=row.suite,
        suite_digest=row.suite_digest,
        protocol=row.protocol,
        metric=row.metric,
        scores=row.scores,
        standard_errors=row.standard_errors or {},
        by_seed=row.by_seed or {},
        seeds=row.seeds or [],
        negative_flips=row.negative_flips or {},
        average=fmean(row.scores.values()),
        standard_error=standard_error(row.scores, row.standard_errors or {}),
        software=row.software,
        evaluator=row.contributor.name,
        created_at=row.created_at,
    )
