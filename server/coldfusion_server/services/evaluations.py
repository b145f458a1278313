"""Evaluations: what evaluators measured of a base."""

from __future__ import annotations

from statistics import fmean

from sqlalchemy import select

from coldfusion_server.db.tables import EvaluationRow
from coldfusion_server.events import outbox
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_base, find_model
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared.schemas.bases import Evaluation, EvaluationReport
from coldfusion_shared.schemas.tokens import Role


def post_evaluation(
    ctx: Context, name: str, version: str, report: EvaluationReport, principal: Principal | None
) -> Evaluation:
    """Keep an evaluator's scores of a base."""
    who = require(principal, Role.EVALUATOR)
    with ctx.database.write() as session:
        model = find_model(session, name, principal)
        base = find_base(session, model, version)
        row = EvaluationRow(
            base_id=base.id,
            contributor_id=who.contributor_id,
            suite=report.suite,
            protocol=report.protocol,
            metric=report.metric,
            scores=report.scores,
            created_at=ctx.now(),
        )
        session.add(row)
        session.flush()
        session.refresh(row)
        evaluation = _to_schema(row, base.number)
        data = {"version": evaluation.version, "suite": report.suite, "average": evaluation.average}
        outbox.append(session, ctx.now(), "evaluation.posted", name, data)
        return evaluation


def list_evaluations(
    ctx: Context, name: str, version: str, principal: Principal | None
) -> list[Evaluation]:
    """Return all evaluations of one base, oldest first."""
    with ctx.database.read() as session:
        base = find_base(session, find_model(session, name, principal), version)
        rows = session.scalars(
            select(EvaluationRow).where(EvaluationRow.base_id == base.id).order_by(EvaluationRow.id)
        )
        return [_to_schema(row, base.number) for row in rows]


def _to_schema(row: EvaluationRow, number: int) -> Evaluation:
    return Evaluation(
        version=f"v{number}",
        suite=row.suite,
        protocol=row.protocol,
        metric=row.metric,
        scores=row.scores,
        average=fmean(row.scores.values()),
        evaluator=row.contributor.name,
        created_at=row.created_at,
    )
