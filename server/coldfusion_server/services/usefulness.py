"""
What contributions do alone, to the scores of the bases that they were made from.

The Repository's own evaluator measures it where a policy asks for it and its gate has a suite. No
round waits for that: it is told in the receipt, and who decides on a quarantine can go by it.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributionRow, ModelRow, SuiteRow
from coldfusion_server.services import contributions, leases, suites
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import policy_of
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import EvaluationFailed
from coldfusion_shared.rounds import gate as gates
from coldfusion_shared.schemas.contributions import Effect, Finding
from coldfusion_shared.schemas.evaluations import EvaluationReport
from coldfusion_shared.schemas.gates import EvaluatorVerdict, Gate
from coldfusion_shared.screening.usefulness import NAME, wanted

# Who has measured, as gates name evaluators; only the numbers are used.
HERE = "repository"
# What may come into a base still; nobody decides on what is over.
MEASURED = (ContributionState.QUARANTINED, ContributionState.ACCEPTED)


def waiting(session: Session, suite_digest: str) -> Iterator[str]:
    """Yield the ids of the contributions that wait to be measured by the suite, oldest first."""
    for model in session.scalars(select(ModelRow).order_by(ModelRow.id)):
        policy = policy_of(model)
        if policy.gate.suite is None or wanted(policy.screening) is None:
            continue
        found = select(SuiteRow.digest).where(SuiteRow.name == policy.gate.suite)
        if session.scalar(found) != suite_digest:
            continue
        yield from session.scalars(
            select(ContributionRow.id)
            .where(
                ContributionRow.model_id == model.id,
                ContributionRow.state.in_(MEASURED),
                ContributionRow.effect.is_(None),
            )
            .order_by(ContributionRow.number)
        )


def find(session: Session, contribution: str) -> ContributionRow:
    """Return the row of a contribution that is known to be there."""
    return session.scalars(select(ContributionRow).where(ContributionRow.id == contribution)).one()


def is_gone(row: ContributionRow) -> bool:
    """Return whether nobody waits for its measurement any more."""
    return row.state not in MEASURED or row.effect is not None


def keep(
    ctx: Context,
    contribution: str,
    reports: tuple[EvaluationReport, EvaluationReport],
    lease: leases.Lease,
) -> float:
    """
    Keep what was measured of the base, and of base and update together; return the mean score.

    Raises:
        EvaluationFailed: the reports are not of the suite that the policy's gate names.
        LeaseLost: another one measures it by now.
    """
    with ctx.database.write() as session:
        leases.check(session, lease)
        row = find(session, contribution)
        # Findings are written under the round's lock.
        contributions.lock_round(session, row)
        found = _compared(session, row, reports)
        if not is_gone(row):
            _write(ctx, session, row, found, reports[0].suite)
    return found.candidate


def _compared(
    session: Session, row: ContributionRow, reports: tuple[EvaluationReport, EvaluationReport]
) -> EvaluatorVerdict:
    base, together = reports
    parameters = wanted(policy_of(row.model).screening)
    gate = Gate(
        kind="suite",
        suite=base.suite,
        tolerance=0.0 if parameters is None else parameters.tolerance,
    )
    suite = suites.to_schema(suites.find_suite(session, base.suite)).suite
    measured = gates.Measurements(suite, {HERE: base}, {HERE: together})
    verdict = gates.decide(gate, None, measured)
    if not verdict.evaluators:
        raise EvaluationFailed(f"What was measured says nothing: {verdict.reason}")
    return verdict.evaluators[0]


def _write(
    ctx: Context, session: Session, row: ContributionRow, found: EvaluatorVerdict, suite: str
) -> None:
    effect = Effect(
        suite=suite,
        base=found.base,
        score=found.candidate,
        difference=found.difference,
        standard_error=found.standard_error,
    )
    finding = Finding(
        check=NAME,
        verdict="pass" if found.passed else "warn",
        message=f"alone it takes the mean score on {suite} from {found.base:.2f} to "
        f"{found.candidate:.2f}",
        measured=found.difference,
        limit=-found.allowed_loss,
    )
    row.effect = effect.model_dump(mode="json")
    others = [one for one in row.findings if one["check"] != NAME]
    row.findings = [*others, finding.model_dump(mode="json")]
    contributions.tell(session, ctx.now(), row, "measured")
