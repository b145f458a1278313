"""Evaluations: what evaluators measured of a base."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from math import hypot
from statistics import fmean

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import BaseRow, EvaluationRow
from coldfusion_server.events import outbox
from coldfusion_server.services import leases, suites
from coldfusion_server.services.agreement import agreements
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_base, find_model
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared.schemas.agreement import Agreement
from coldfusion_shared.schemas.evaluations import Evaluation, EvaluationReport
from coldfusion_shared.schemas.tokens import Role


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

    The same report by the same evaluator changes nothing.

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
    who = require(principal, Role.EVALUATOR)
    try:
        return _post(ctx, name, version, report, who, lease)
    except IntegrityError:
        # The same report at the same time: the other one is there by now.
        return _post(ctx, name, version, report, who, lease)


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


def _post(
    ctx: Context,
    name: str,
    version: str,
    report: EvaluationReport,
    who: Principal,
    lease: leases.Lease | None,
) -> tuple[Evaluation, bool]:
    with ctx.database.write() as session:
        if lease is not None:
            leases.check(session, lease)
        base = find_base(session, find_model(session, name, who), version)
        suites.check_report(session, report)
        digest = _digest(report)
        row = session.scalar(
            select(EvaluationRow).where(
                EvaluationRow.base_id == base.id,
                EvaluationRow.contributor_id == who.contributor_id,
                EvaluationRow.report_sha256 == digest,
            )
        )
        if row is not None:
            return to_schema(row, base.number), False
        kept = to_schema(_new_row(ctx, session, base, report, who, digest), base.number)
        _tell(ctx, session, name, kept)
        return kept, True


def _new_row(
    ctx: Context,
    session: Session,
    base: BaseRow,
    report: EvaluationReport,
    who: Principal,
    digest: str,
) -> EvaluationRow:
    row = EvaluationRow(
        base_id=base.id,
        contributor_id=who.contributor_id,
        suite=report.suite,
        suite_digest=report.suite_digest,
        protocol=report.protocol,
        metric=report.metric,
        scores=report.scores,
        standard_errors=report.standard_errors,
        by_seed=report.by_seed,
        seeds=report.seeds,
        software=report.software,
        report_sha256=digest,
        created_at=ctx.now(),
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    return row


def _tell(ctx: Context, session: Session, name: str, kept: Evaluation) -> None:
    fields = {"version", "suite", "protocol", "average", "standard_error", "evaluator"}
    data = kept.model_dump(mode="json", include=fields)
    outbox.append(session, ctx.now(), "evaluation.posted", name, data)


def _digest(report: EvaluationReport) -> str:
    text = json.dumps(report.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def to_schema(row: EvaluationRow, number: int) -> Evaluation:
    """Return what the API shows of an evaluation of base v`number`."""
    return Evaluation(
        version=f"v{number}",
        suite=row.suite,
        suite_digest=row.suite_digest,
        protocol=row.protocol,
        metric=row.metric,
        scores=row.scores,
        standard_errors=row.standard_errors or {},
        by_seed=row.by_seed or {},
        seeds=row.seeds or [],
        average=fmean(row.scores.values()),
        standard_error=standard_error(row.scores, row.standard_errors or {}),
        software=row.software,
        evaluator=row.contributor.name,
        created_at=row.created_at,
    )
