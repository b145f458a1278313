"""
A round set beside itself as it closes: what sticks out of it waits for a maintainer after all.

On arrival a contribution is compared with those of earlier rounds. Which ones its own round is made
of is known when that closes; then they are set beside each other, by what was measured of them, and
no file is read. All of it happens in the transaction of the closing, under the round's lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributionRow, ModelRow, RoundRow
from coldfusion_server.events import audit
from coldfusion_server.services import contributions, past, rounds
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import policy_of
from coldfusion_server.services.screening import WAIT
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.rounds.closing import Choice, choose
from coldfusion_shared.schemas.contributions import Finding, worst
from coldfusion_shared.screening.hindsight import in_hindsight

log = structlog.get_logger(__name__)

# Whose decision it is in the audit log; it has no token.
SCREENING = "screening"
HINT = f"It was accepted when it came; beside the whole round it sticks out. {WAIT}"


@dataclass(frozen=True)
class Settled:
    """
    What a round is made of.

    Attributes:
        choice: what it takes.
        held: how many went into quarantine.
    """

    choice: Choice
    held: int


def settle(ctx: Context, session: Session, model: ModelRow, row: RoundRow) -> Settled:
    """
    Put what sticks out of the round into quarantine, and choose of the rest.

    Whatever comes into the round in place of another one is compared, too. Nobody is judged whom a
    maintainer has let in. The caller holds the round's lock.
    """
    policy, held = policy_of(model), 0
    earlier = past.fused_before(session, row.model_id)
    while True:
        choice = choose(policy, rounds.waiting(session, row))
        found = in_hindsight(
            past.members_of(session, choice.chosen), earlier, screening=policy.screening
        )
        more = _hold_back(ctx, session, row, found)
        if not more:
            return Settled(choice, held)
        held += more


def _hold_back(
    ctx: Context, session: Session, row: RoundRow, found: Mapping[str, Sequence[Finding]]
) -> int:
    """Write down what was found, and quarantine those that are to be; return how many."""
    query = select(ContributionRow).where(ContributionRow.id.in_(found))
    # In the order of acceptance, so that events have one, too.
    items = list(session.scalars(query.order_by(ContributionRow.position)))
    held = 0
    for item in items:
        findings = found[item.id]
        item.findings = _with(item.findings, findings)
        if worst(findings) == "quarantine":
            _quarantine(ctx, session, row, item, findings)
            held += 1
    return held


def _with(before: Sequence[Mapping[str, object]], found: Sequence[Finding]) -> list[object]:
    """Return all findings, those of the same checks replaced in their places."""
    new = {one.check: one.model_dump(mode="json") for one in found}
    replaced = [new.pop(str(one["check"]), one) for one in before]
    return [*replaced, *new.values()]


def _quarantine(
    ctx: Context,
    session: Session,
    row: RoundRow,
    item: ContributionRow,
    findings: Sequence[Finding],
) -> None:
    told = "; ".join(one.message for one in findings if one.verdict == "quarantine")
    contributions.move(
        session,
        ctx.now(),
        item,
        ContributionState.QUARANTINED,
        decided_at=None,
        position=None,
        reason=f"Beside all of round {row.number}: {told}",
        hint=HINT,
    )
    audit.note(
        session, ctx.now(), SCREENING, "contribution.quarantined", model=item.model.name,
        subject=item.id, reason=item.reason, contributor=item.contributor.name, round=row.number,
    )  # fmt: skip
    log.info("quarantined in hindsight", contribution=item.id, round=row.number)
