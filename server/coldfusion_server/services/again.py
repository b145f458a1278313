"""Having fused again what a gate has rejected: all of it, or without what did the harm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributionRow, ModelRow, RoundRow
from coldfusion_server.events import audit
from coldfusion_server.services import contributions, late, rounds
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_model, find_round
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import BaseOutdated, InvalidRequest, StateConflict
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.rounds import AgainRequest, FusedAgain
from coldfusion_shared.schemas.tokens import Role

# So many ids are named in a message.
MOST_NAMED = 5


@dataclass
class _Outcome:
    """What became of what was set aside: ids."""

    accepted: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    too_old: list[str] = field(default_factory=list)


def fuse_again(
    ctx: Context, name: str, number: str, wanted: AgainRequest, principal: Principal | None
) -> FusedAgain:
    """
    Put what a rejected round has set aside into the newest round, behind what that has.

    Those that are to be left out are rejected with the reason, and those whose base is too old by
    now with that one.

    Raises:
        ModelNotFound, RoundNotFound: there is no such round.
        StateConflict: it was not rejected, or has nothing any more that is set aside.
        InvalidRequest: what is to be left out is no part of it; nothing is done.
    """
    who = require(principal, Role.MAINTAINER, name)
    with ctx.database.write() as session:
        model = find_model(session, name, principal)
        # First the older round, then the newer one: the order of all who lock both.
        rejected = rounds.locked(session, find_round(session, model, number).id)
        items = set_aside(session, model, rejected)
        _check_part(rejected, items, wanted.without)
        newest = rounds.newest(session, model)
        outcome = _Outcome()
        _leave_out(ctx, session, rejected, items, wanted, who, outcome)
        _take_in(ctx, session, model, newest, items, outcome)
        audit.note(
            session, ctx.now(), who, "round.again", model=name, subject=rejected.number,
            reason=wanted.reason, left_out=outcome.left_out, accepted=outcome.accepted,
        )  # fmt: skip
        return FusedAgain(
            round=rounds.to_schema(session, model, newest, ctx.now()),
            accepted=outcome.accepted,
            left_out=outcome.left_out,
            too_old=outcome.too_old,
        )


def set_aside(session: Session, model: ModelRow, row: RoundRow) -> list[ContributionRow]:
    """Return what the round's gate has rejected and nobody has decided on since, in its order."""
    if row.state != RoundState.REJECTED:
        raise StateConflict(
            f"Round {row.number} of {model.name} is {row.state}; only what a gate has rejected can "
            "be fused again.",
            hint=f"See its rounds: GET /v1/models/{model.name}/rounds",
        )
    query = select(ContributionRow).where(
        ContributionRow.round_id == row.id, ContributionRow.state == ContributionState.SET_ASIDE
    )
    items = list(session.scalars(query.order_by(ContributionRow.position)))
    if not items:
        raise StateConflict(
            f"Nothing of round {row.number} of {model.name} is set aside any more: it was decided "
            "on already.",
            hint=f"See where it went: coldfusion-client status {model.name}",
        )
    return items


def _check_part(row: RoundRow, items: Sequence[ContributionRow], without: Sequence[str]) -> None:
    known = {item.id for item in items}
    strange = [one for one in dict.fromkeys(without) if one not in known]
    if strange:
        named = ", ".join(repr(one[:40]) for one in strange[:MOST_NAMED])
        more = f" and {len(strange) - MOST_NAMED} more" if len(strange) > MOST_NAMED else ""
        raise InvalidRequest(
            f"Round {row.number} has not set aside {named}{more}; nothing was done.",
            hint=f"It has set aside: {', '.join(sorted(known)[:50])}",
        )


def _leave_out(
    ctx: Context,
    session: Session,
    row: RoundRow,
    items: Sequence[ContributionRow],
    wanted: AgainRequest,
    who: Principal,
    outcome: _Outcome,
) -> None:
    why = wanted.reason or "without it the others are to be fused again."
    reason = f"{who.name} left it out after the gate had rejected round {row.number}: {why}"
    for item in items:
        if item.id in wanted.without:
            contributions.reject(session, ctx.now(), item, reason, None)
            outcome.left_out.append(item.id)


def _take_in(
    ctx: Context,
    session: Session,
    model: ModelRow,
    newest: RoundRow,
    items: Sequence[ContributionRow],
    outcome: _Outcome,
) -> None:
    line = late.line_of(session, model, newest)
    position = _last_position(session, newest)
    for item in items:
        if item.state != ContributionState.SET_ASIDE:
            continue
        try:
            late.check_in_time(line, item.base_number)
        except BaseOutdated as error:
            contributions.reject(session, ctx.now(), item, error.message, error.hint)
            outcome.too_old.append(item.id)
            continue
        position += 1
        contributions.move(
            session,
            ctx.now(),
            item,
            ContributionState.ACCEPTED,
            round_id=newest.id,
            position=position,
            chosen=False,
            carried=item.carried + 1,
            staleness=None,
            factor=None,
            cosine=None,
            norm_ratio=None,
            reason=None,
        )
        outcome.accepted.append(item.id)


def _last_position(session: Session, row: RoundRow) -> int:
    query = select(func.max(ContributionRow.position)).where(ContributionRow.round_id == row.id)
    return session.scalar(query) or 0
