"""What was measured of several bases at once, for whoever compares them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import BaseRow, CandidateRow, EvaluationRow, SuiteRow
from coldfusion_server.services import evaluation_tries, evaluations, suites
from coldfusion_server.services.context import Context
from coldfusion_server.services.evaluation_tries import EvaluationFailure
from coldfusion_server.services.lookup import find_model
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.schemas.evaluations import Evaluation, Suite


@dataclass(frozen=True)
class Measurements:
    """
    Evaluations of a model's bases.

    Attributes:
        evaluations: oldest first; of equal ones by one evaluator the newest alone.
        suites: by digest, those that the evaluations name.
        failures: what the Repository's own evaluator could not measure, newest bases first.
    """

    evaluations: list[Evaluation]
    suites: dict[str, Suite]
    failures: list[EvaluationFailure]


def measurements(
    ctx: Context, name: str, principal: Principal | None, numbers: Collection[int]
) -> Measurements:
    """Return what was measured of those of the bases `numbers` that there are."""
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        # What an evaluator has measured again replaces what was there before.
        newest = (
            select(func.max(EvaluationRow.id))
            .join(BaseRow, BaseRow.id == EvaluationRow.base_id)
            .where(BaseRow.model_id == model.id, BaseRow.number.in_(numbers))
            .group_by(
                EvaluationRow.base_id,
                EvaluationRow.contributor_id,
                EvaluationRow.protocol,
                EvaluationRow.suite,
                EvaluationRow.suite_digest,
                EvaluationRow.metric,
            )
        )
        rows = session.execute(
            select(EvaluationRow, BaseRow.number)
            .join(BaseRow, BaseRow.id == EvaluationRow.base_id)
            .where(EvaluationRow.id.in_(newest))
            .order_by(EvaluationRow.id)
        )
        found = [evaluations.to_schema(row, number) for row, number in rows]
        failed = evaluation_tries.failures(session, model, numbers)
        return Measurements(found, _suites(session, found), failed)


def of_candidate(session: Session, candidate: CandidateRow) -> Measurements:
    """Return what was measured of a candidate."""
    query = select(EvaluationRow).where(EvaluationRow.candidate_id == candidate.id)
    rows = session.scalars(query.order_by(EvaluationRow.id))
    # What an evaluator has measured again replaces what was there before.
    newest = {
        (row.contributor_id, row.protocol, row.suite, row.suite_digest, row.metric): row
        for row in rows
    }
    found = [evaluations.to_schema(row, None) for row in newest.values()]
    return Measurements(found, _suites(session, found), [])


def _suites(session: Session, found: Iterable[Evaluation]) -> dict[str, Suite]:
    digests = {item.suite_digest for item in found if item.suite_digest is not None}
    rows = session.scalars(select(SuiteRow).where(SuiteRow.digest.in_(digests)))
    return {row.digest: suites.to_schema(row).suite for row in rows}
