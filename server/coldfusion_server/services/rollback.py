"""
Going back to another base: the head moves, and nothing is deleted.

Contributions that wait are put onto the new head's line, as late ones, or refused, as the policy
says; a round that is under way ends, since what it makes would hang on the base that is left.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ModelRow, RoundRow
from coldfusion_server.events import audit, outbox
from coldfusion_server.services import head_moves, models, rounds
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_base, find_model
from coldfusion_server.services.settling import Outcome, settle
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared.schemas.models import RollbackRequest, RolledBack
from coldfusion_shared.schemas.tokens import Role


@dataclass(frozen=True)
class _Move:
    """The head goes from one number to another, and who wants it why."""

    before: int
    after: int
    who: Principal
    reason: str

    @property
    def text(self) -> str:
        why = self.reason.rstrip(".")
        return f"The head went from v{self.before} to v{self.after}: {why}"


def roll_back(
    ctx: Context, name: str, wanted: RollbackRequest, principal: Principal | None
) -> RolledBack:
    """
    Make another base the head: an older one or, to go forward again, a newer one.

    Where it is the head already nothing happens, so that it may be asked for twice.

    Raises:
        ModelNotFound, BaseNotFound: the model has no such base.
        Forbidden: the caller is no maintainer.
    """
    who = require(principal, Role.MAINTAINER, name)
    with ctx.database.write() as session:
        model = find_model(session, name, principal)
        # Under its lock bases are published, too: of both at once one comes first.
        newest = rounds.newest(session, model)
        number = find_base(session, model, wanted.version).number
        move = _Move(model.current, number, who, wanted.reason)
        outcome = Outcome()
        if move.before != move.after:
            outcome = _carry_out(ctx, session, model, newest, move)
        return _told(session, model, move, outcome)


def _carry_out(
    ctx: Context, session: Session, model: ModelRow, newest: RoundRow, move: _Move
) -> Outcome:
    # Whoever is at the data folder is the operator, and no contributor.
    who = move.who.contributor_id or None
    kind = head_moves.ROLLBACK
    head_moves.move_head(session, ctx.now(), model, move.after, kind, reason=move.reason, who=who)
    outcome = settle(ctx, session, model, newest, move.before, move.text)
    data = {
        "from": f"v{move.before}",
        "to": f"v{move.after}",
        "reason": move.reason,
        "by": move.who.name,
    }
    outbox.append(session, ctx.now(), "model.rolled_back", model.name, data)
    audit.note(
        session, ctx.now(), move.who, "model.rolled_back", model=model.name, subject=data["to"],
        reason=move.reason, before=data["from"],
    )  # fmt: skip
    return outcome


def _told(session: Session, model: ModelRow, move: _Move, outcome: Outcome) -> RolledBack:
    return RolledBack(
        moved=move.before != move.after,
        before=f"v{move.before}",
        after=f"v{move.after}",
        cancelled=outcome.cancelled,
        late=outcome.late,
        refused=outcome.refused,
        sentence=_sentence(model, move, outcome),
        model=models.to_schema(session, model),
    )


def _sentence(model: ModelRow, move: _Move, outcome: Outcome) -> str:
    if move.before == move.after:
        return f"v{move.after} is the head of {model.name} already; nothing was changed."
    parts = [f"The head of {model.name} went from v{move.before} to v{move.after}."]
    if outcome.cancelled is not None:
        parts.append(f"Round {outcome.cancelled}, which was under way, is cancelled.")
    if outcome.late:
        parts.append(f"How late what waits is has changed for {len(outcome.late)} of it.")
    if outcome.refused:
        parts.append(f"Refused of what waited: {len(outcome.refused)}.")
    return " ".join(parts)
