"""The gate: what a round's candidates have passed, and what they still wait for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import CandidateRow, EvaluationRow, ModelRow, RoundRow, SuiteRow
from coldfusion_server.services import candidates, evaluations, fuse_inputs, rounds, suites
from coldfusion_server.services.context import Context
from coldfusion_shared.rounds import gate as gates
from coldfusion_shared.rounds.line_search import Tried, search
from coldfusion_shared.schemas.evaluations import Evaluation, Suite
from coldfusion_shared.schemas.gates import Gate, GateVerdict
from coldfusion_shared.schemas.models import Policy

# By this protocol gates measure.
PROTOCOL = "frozen"
# Whoever hands something in has the worker look at once; this is for what nobody tells of.
LOOK_AGAIN = timedelta(hours=1)


@dataclass(frozen=True)
class Decision:
    """
    What the gate says now.

    Attributes:
        verdict: with all its numbers.
        candidate: the one that passed.
        look_at: when to look again, if nothing comes before; null: it is decided.
    """

    verdict: GateVerdict
    candidate: CandidateRow | None = None
    look_at: datetime | None = None


@dataclass(frozen=True)
class _Waited:
    """What a gate by a suite goes by: the suite, reports of the base, and how long it waits."""

    gate: Gate
    suite: Suite | None
    base: dict[str, Evaluation]
    until: datetime
    timed_out: bool


def decide(ctx: Context, session: Session, row: RoundRow) -> Decision:
    """Decide on the candidates of a round, by the policy that it was closed by."""
    policy = rounds.policy_in_force(session.get_one(ModelRow, row.model_id), row)
    found = candidates.of_round(session, row)
    if policy.gate.kind == "suite":
        return _by_suite(ctx, session, row, policy, found)
    verdict = gates.decide(policy.gate, found[0].relative_norm)
    return _decided(ctx, verdict, found[0])


def _decided(ctx: Context, verdict: GateVerdict, candidate: CandidateRow | None) -> Decision:
    dated = verdict.model_copy(update={"decided_at": ctx.now()})
    return Decision(dated, candidate if verdict.passed else None)


def _by_suite(
    ctx: Context, session: Session, row: RoundRow, policy: Policy, found: Sequence[CandidateRow]
) -> Decision:
    waited = _waited(ctx, session, row, policy.gate)
    choose = _searched if policy.line_search else _single
    verdict, candidate = choose(session, waited, found)
    if verdict.passed is not None:
        return _decided(ctx, verdict, candidate)
    look_at = ctx.now() + LOOK_AGAIN if waited.timed_out else waited.until
    return Decision(verdict, look_at=look_at)


def _single(
    session: Session, waited: _Waited, found: Sequence[CandidateRow]
) -> tuple[GateVerdict, CandidateRow | None]:
    (candidate,) = found
    reports = _reports(session, waited.suite, EvaluationRow.candidate_id == candidate.id)
    measurements = gates.Measurements(waited.suite, waited.base, reports, waited.timed_out)
    return gates.decide(waited.gate, candidate.relative_norm, measurements), candidate


def _searched(
    session: Session, waited: _Waited, found: Sequence[CandidateRow]
) -> tuple[GateVerdict, CandidateRow | None]:
    tried = [
        Tried(
            one.id,
            _rate(one),
            one.relative_norm,
            _reports(session, waited.suite, EvaluationRow.candidate_id == one.id),
        )
        for one in found
    ]
    best = search(waited.gate, tried, waited.suite, waited.base, timed_out=waited.timed_out)
    return best.verdict, None if best.index is None else found[best.index]


def _rate(candidate: CandidateRow) -> float:
    assert candidate.server_lr is not None, "each candidate of a line search has its rate"
    return candidate.server_lr


def _waited(ctx: Context, session: Session, row: RoundRow, gate: Gate) -> _Waited:
    assert row.evaluating_at is not None, "it is evaluated since then"
    suite = _suite(session, gate)
    model = session.get_one(ModelRow, row.model_id)
    base = fuse_inputs.base_numbered(session, model, row.base_number)
    until = row.evaluating_at + timedelta(seconds=gate.timeout_seconds)
    return _Waited(
        gate=gate,
        suite=suite,
        base=_reports(session, suite, EvaluationRow.base_id == base.id),
        until=until,
        timed_out=ctx.now() >= until,
    )


def _suite(session: Session, gate: Gate) -> Suite | None:
    row = session.scalar(select(SuiteRow).where(SuiteRow.name == gate.suite))
    return None if row is None else suites.to_schema(row).suite


def _reports(
    session: Session, suite: Suite | None, of: ColumnElement[bool]
) -> dict[str, Evaluation]:
    """Return each evaluator's newest report of the suite as it is registered, by name."""
    if suite is None:
        return {}
    query = select(EvaluationRow).where(
        of, EvaluationRow.suite_digest == suite.digest(), EvaluationRow.protocol == PROTOCOL
    )
    rows = session.scalars(query.order_by(EvaluationRow.id))
    return {row.contributor.name: evaluations.to_schema(row, None) for row in rows}
