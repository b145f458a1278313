"""Ending a round without a base, by a maintainer's decision; what it had goes on to the next."""

from __future__ import annotations

from sqlalchemy.orm import Session

from coldfusion_server.db.tables import RoundRow
from coldfusion_server.events import audit
from coldfusion_server.services import ending, rounds
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import OPEN, find_model, find_round
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared.errors import InvalidRequest, StateConflict
from coldfusion_shared.rounds import ENDS, RoundState
from coldfusion_shared.schemas.rounds import Round
from coldfusion_shared.schemas.tokens import Role


def cancel(ctx: Context, name: str, number: str, reason: str, principal: Principal | None) -> Round:
    """
    Cancel a round that is open or under way, and open the next one with what it had.

    One that is cancelled already stays as it is, so that it may be asked for twice: by its number,
    as the open one is another by then.

    Raises:
        ModelNotFound, RoundNotFound: there is no such round.
        InvalidRequest: the round is named by no number.
        StateConflict: it has ended otherwise, or is open and has nothing.
    """
    who = require(principal, Role.MAINTAINER, name)
    _check_number(name, number)
    with ctx.database.write() as session:
        model = find_model(session, name, principal)
        row = rounds.locked(session, find_round(session, model, number).id)
        session.refresh(model)
        if row.state in ENDS and row.state != RoundState.CANCELLED:
            raise StateConflict(
                f"Round {row.number} of {name} is {row.state}: it has ended.",
                hint="To leave the base that it published, go back with: coldfusion-server model "
                f"rollback {name} VERSION --reason TEXT",
            )
        if row.state != RoundState.CANCELLED:
            _check_not_empty(session, name, row)
            why = f"Cancelled by {who.name}: {reason}"
            ending.end_round(ctx, session, row, RoundState.CANCELLED, reason=why)
            audit.note(
                session, ctx.now(), who, "round.cancelled", model=name, subject=row.number,
                reason=reason,
            )  # fmt: skip
        return rounds.to_schema(session, model, row, ctx.now())


def _check_number(name: str, number: str) -> None:
    if number == OPEN:
        raise InvalidRequest(
            "A round is cancelled by its number: asked twice for the open one, two would be.",
            hint=f"See the number of the open one: GET /v1/models/{name}/rounds/open",
        )


def _check_not_empty(session: Session, name: str, row: RoundRow) -> None:
    if row.state == RoundState.OPEN and not rounds.count(session, row.id, *ending.WAITING):
        raise StateConflict(
            f"Round {row.number} of {name} is open and has nothing yet: there is nothing to "
            "cancel.",
            hint="A changed policy is in force for it at once.",
        )
