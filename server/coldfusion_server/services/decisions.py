"""
What maintainers decide on contributions in quarantine: released, or rejected.

Both happen under the round's lock, as closing and withdrawing do: of two at once one comes first,
and the other one finds what it did.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributionRow, RoundRow
from coldfusion_server.events import audit
from coldfusion_server.services import contributions, garbage, late
from coldfusion_server.services.context import Context
from coldfusion_server.services.tokens import Principal, require, require_anywhere
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import StateConflict
from coldfusion_shared.schemas.contributions import Decided, Decision
from coldfusion_shared.schemas.tokens import Role

_S = ContributionState
# What becomes of a contribution after each decision.
RELEASED = (_S.ACCEPTED, _S.FUSED, _S.SET_ASIDE)
REJECTED = (_S.REJECTED,)
SEND_ANOTHER = "Ask its maintainers what would do; then finetune from the newest base once more."


def release(
    ctx: Context, contribution: str, wanted: Decision, principal: Principal | None
) -> Decided:
    """
    Let a contribution in quarantine take part in the newest round, behind what that has.

    Once more, and nothing happens.

    Raises:
        ContributionNotFound: there is none of that id.
        Forbidden: `principal` is no maintainer of its model.
        StateConflict: it is not in quarantine, or too late by now; nothing is changed.
    """
    who = require_anywhere(principal, Role.MAINTAINER)
    with ctx.database.write() as session:
        row = contributions.find(session, contribution, principal)
        require(who, Role.MAINTAINER, row.model.name)
        round_row = contributions.lock_round(session, row)
        changed = _is_open(row, RELEASED)
        if changed:
            _check_in_time(session, row, round_row)
            contributions.accept(
                session, ctx.now(), row, round_row, decided_by=who.name, decision=wanted.reason
            )
            _note(ctx, session, row, "released", wanted, who)
        return Decided(
            contribution=contributions.to_schema(row),
            changed=changed,
            sentence=_of_release(session, row, round_row, changed=changed),
        )


def reject(
    ctx: Context, contribution: str, wanted: Decision, principal: Principal | None
) -> Decided:
    """
    Reject a contribution in quarantine, for good; its stored files go.

    Once more, and nothing happens.

    Raises:
        ContributionNotFound: there is none of that id.
        Forbidden: `principal` is no maintainer of its model.
        StateConflict: it is not in quarantine.
    """
    who = require_anywhere(principal, Role.MAINTAINER)
    with ctx.database.write() as session:
        row = contributions.find(session, contribution, principal)
        require(who, Role.MAINTAINER, row.model.name)
        contributions.lock_round(session, row)
        changed = _is_open(row, REJECTED)
        if changed:
            contributions.reject(
                session,
                ctx.now(),
                row,
                f"Rejected by {who.name}: {wanted.reason}",
                SEND_ANOTHER,
                decided_by=who.name,
                decision=wanted.reason,
            )
            _note(ctx, session, row, "rejected", wanted, who)
        contributions.load_files(row)
        told = "is rejected" if changed else "was rejected before"
        done = Decided(
            contribution=contributions.to_schema(row),
            changed=changed,
            sentence=f"{row.id} {told}; it goes into no base.",
        )
    if changed:
        with garbage.later_if_away(row):
            garbage.remove_rejected(ctx, row)
    return done


def _note(
    ctx: Context, session: Session, row: ContributionRow, what: str, why: Decision, who: Principal
) -> None:
    audit.note(
        session, ctx.now(), who, f"contribution.{what}", model=row.model.name, subject=row.id,
        reason=why.reason, contributor=row.contributor.name,
    )  # fmt: skip


def _is_open(row: ContributionRow, outcomes: tuple[ContributionState, ...]) -> bool:
    """Return whether it waits for a decision; false where that was this one, with `outcomes`."""
    if row.state == _S.QUARANTINED:
        return True
    if row.decided_by is not None and row.state in outcomes:
        return False
    raise StateConflict(
        f"Contribution {row.id} is {row.state}, not in quarantine: there is nothing to decide.",
        hint="What waits for a decision: coldfusion-server contribution list. What was accepted "
        f"is taken out with: coldfusion-server contribution remove {row.id} --reason TEXT",
    )


def _check_in_time(session: Session, row: ContributionRow, newest: RoundRow) -> None:
    outdated = contributions.why_too_late(session, row, newest)
    if outdated is not None:
        raise StateConflict(
            f"Contribution {row.id} cannot be released any more. {outdated.message}",
            hint="Raise the policy's max_staleness first, or reject it: its contributor can put "
            "the same training onto the newest base, with --onto latest.",
        )


def _of_release(session: Session, row: ContributionRow, newest: RoundRow, *, changed: bool) -> str:
    if not changed:
        return f"{row.id} was released before and is {row.state}."
    line = late.line_of(session, row.model, newest)
    return f"{row.id} is released. {late.prospect(line, row.base_number).sentence}"
