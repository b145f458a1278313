"""Rounds: opened, advanced, shown. `advance` is the only writer of a round's state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import (
    CandidateRow,
    ContributionRow,
    ContributorRow,
    ModelRow,
    RoundRow,
)
from coldfusion_server.events import outbox
from coldfusion_server.services import leases, paging
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_model, find_round, policy_of
from coldfusion_server.services.swapping import swap
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import UnknownName
from coldfusion_shared.fusion.plan import kinds
from coldfusion_shared.rounds import ENDS, RoundState, check_transition
from coldfusion_shared.rounds.closing import Missing, Waiting, choose, missing, next_closing
from coldfusion_shared.schemas.common import Page
from coldfusion_shared.schemas.gates import GateVerdict
from coldfusion_shared.schemas.models import Policy
from coldfusion_shared.schemas.rounds import Round


def advance(
    session: Session,
    now: datetime,
    row: RoundRow,
    target: RoundState,
    lease: leases.Lease | None = None,
    **changes: Any,
) -> None:
    """
    Take a round to `target` in the caller's transaction, and tell so.

    A compare-and-swap: of two that try the same at once, one succeeds.

    Args:
        session: the transaction.
        now: the time.
        row: the round as the caller knows it.
        target: where to.
        lease: what the caller holds, for all that is done by workers.
        changes: further columns to set.

    Raises:
        InvalidTransition: the table of transitions does not have it.
        LeaseLost: another worker has taken over.
        StateConflict: the round is not in the state any more that the caller knows.
    """
    check_transition(RoundState(row.state), target)
    if lease is not None:
        leases.check(session, lease)
    if target in ENDS:
        changes["finished_at"] = now
    swap(session, row, target, f"Round {row.number}", **changes)
    name = session.scalar(select(ModelRow.name).where(ModelRow.id == row.model_id))
    data = {"round": row.number, "state": target.value, "reason": row.reason}
    outbox.append(session, now, f"round.{target.value}", name, data)


def open_next(session: Session, model: ModelRow, now: datetime) -> RoundRow:
    """Open the model's next round, on its head, in the caller's transaction."""
    last = session.scalar(select(func.max(RoundRow.number)).where(RoundRow.model_id == model.id))
    row = RoundRow(
        model_id=model.id,
        number=(last or 0) + 1,
        state=RoundState.OPEN,
        base_number=model.current,
        opened_at=now,
    )
    session.add(row)
    session.flush()
    data = {"round": row.number, "base": f"v{row.base_number}"}
    outbox.append(session, now, "round.opened", model.name, data)
    return row


def get_round(ctx: Context, name: str, number: str, principal: Principal | None) -> Round:
    """Return one round, by number or ``open``."""
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        return to_schema(session, model, find_round(session, model, number), ctx.now())


def count_taken(ctx: Context, name: str, number: int, principal: Principal | None) -> int:
    """Return how many contributions the closing of round `number` took."""
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        return len(taken(session, find_round(session, model, str(number))))


def list_rounds(
    ctx: Context, name: str, principal: Principal | None, window: paging.Window
) -> Page[Round]:
    """Return the model's rounds, newest first."""
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        query = select(RoundRow).where(RoundRow.model_id == model.id)
        now = ctx.now()
        return paging.page(
            session, query, RoundRow.id, window, lambda row: to_schema(session, model, row, now)
        )


def count(session: Session, round_id: int, *states: ContributionState) -> int:
    """Return how many contributions of the round are in one of `states`."""
    number = session.scalar(
        select(func.count())
        .select_from(ContributionRow)
        .where(ContributionRow.round_id == round_id, ContributionRow.state.in_(states))
    )
    return number or 0


def policy_in_force(model: ModelRow, row: RoundRow) -> Policy:
    """Return the policy that the round was closed by, or the model's while it is open."""
    return policy_of(model) if row.policy is None else Policy.model_validate(row.policy)


def waiting(session: Session, row: RoundRow) -> list[Waiting]:
    """Return what the round could take if it closed now, in the order of acceptance."""
    # Of a round with a thousand: one query, and nothing that closing does not go by.
    query = (
        select(
            ContributionRow.id, ContributorRow.name, ContributionRow.work, ContributionRow.position
        )
        .join(ContributorRow, ContributorRow.id == ContributionRow.contributor_id)
        .where(
            ContributionRow.round_id == row.id,
            ContributionRow.state == ContributionState.ACCEPTED,
        )
        .order_by(ContributionRow.position)
    )
    return [_waiting(*found) for found in session.execute(query)]


def as_waiting(item: ContributionRow) -> Waiting:
    """Return what closing goes by."""
    return _waiting(item.id, item.contributor.name, item.work, item.position)


def _waiting(
    contribution: str, contributor: str, work: Mapping[str, Any], position: int | None
) -> Waiting:
    return Waiting(
        id=contribution,
        contributor=contributor,
        dataset=work.get("dataset"),
        task=work.get("task"),
        position=position or 0,
    )


def taken(session: Session, row: RoundRow) -> list[ContributionRow]:
    """Return what the round's closing took and nobody has taken back, in the fuse's order."""
    query = select(ContributionRow).where(
        ContributionRow.round_id == row.id,
        ContributionRow.chosen,
        ContributionRow.state.in_((ContributionState.ACCEPTED, ContributionState.FUSED)),
    )
    return list(session.scalars(query.order_by(ContributionRow.position)))


def fewest(policy: Policy) -> int:
    """Return how many contributions the policy's fusion method needs."""
    kind = kinds(policy.recipe())
    return kind.method.minimum(kind.parameters)


def can_fuse(policy: Policy, contributors: Sequence[str]) -> bool:
    """
    Return whether the policy's fusion method can fuse one contribution of each of `contributors`.

    Raises:
        UnknownName: there is no such method here.
    """
    return len(contributors) >= fewest(policy) and not weighs_nothing(policy, contributors)


def weighs_nothing(policy: Policy, contributors: Sequence[str]) -> bool:
    """Return whether the weights that the policy gives these contributors sum up to 0."""
    return not sum(policy.contributor_weights.get(name, 1.0) for name in contributors) > 0


def _missing(policy: Policy, waits: Sequence[Waiting], row: RoundRow) -> Missing:
    try:
        least = fewest(policy)
    except UnknownName:
        # What says so is the closing; the round is to be seen all the same.
        least = 1
    return missing(policy, waits, least=least, at_set_time=row.close_at is not None)


def _needs(policy: Policy, waits: Sequence[Waiting], lacking: Missing) -> str:
    if not lacking.contributions and 0 in policy.contributor_weights.values():
        chosen = set(choose(policy, waits).chosen)
        if weighs_nothing(policy, [one.contributor for one in waits if one.id in chosen]):
            return "Needs one that counts: all that it would take weighs 0 by contributor_weights."
    return lacking.text


def to_schema(session: Session, model: ModelRow, row: RoundRow, now: datetime) -> Round:
    """Return what the API shows of a round at the time `now`."""
    policy = policy_in_force(model, row)
    is_open = row.state == RoundState.OPEN
    waits = waiting(session, row) if is_open else []
    lacking = _missing(policy, waits, row) if is_open else None
    return Round(
        model=model.name,
        number=row.number,
        state=RoundState(row.state),
        base=f"v{row.base_number}",
        result=None if row.result_number is None else f"v{row.result_number}",
        opened_at=row.opened_at,
        closed_at=row.closed_at,
        finished_at=row.finished_at,
        closes_at=next_closing(policy, waits, row.opened_at, row.close_at, now)
        if is_open
        else None,
        accepted=count(
            session,
            row.id,
            ContributionState.ACCEPTED,
            ContributionState.FUSED,
            ContributionState.SET_ASIDE,
        ),
        waiting=count(
            session,
            row.id,
            ContributionState.DECLARED,
            ContributionState.COMPLETED,
        ),
        quarantined=count(session, row.id, ContributionState.QUARANTINED),
        missing=0 if lacking is None else lacking.contributions,
        missing_contributors=0 if lacking is None else lacking.contributors,
        needs=None if lacking is None else _needs(policy, waits, lacking),
        gate=None if row.gate is None else GateVerdict.model_validate(row.gate),
        candidates=list(
            session.scalars(
                select(CandidateRow.id)
                .where(CandidateRow.round_id == row.id, ~CandidateRow.given_up)
                .order_by(CandidateRow.server_lr, CandidateRow.id)
            )
        ),
        fused_bytes=row.fused_bytes,
        total_bytes=row.total_bytes,
        reason=row.reason,
    )


def locked(session: Session, round_id: int) -> RoundRow:
    """Return the round, locked: contributions are accepted under this lock, too."""
    query = select(RoundRow).where(RoundRow.id == round_id).with_for_update()
    # As it is behind the lock: the session may know it as it was before.
    return session.scalars(query.execution_options(populate_existing=True)).one()


def newest(session: Session, model: ModelRow) -> RoundRow:
    """Return the model's newest round, locked; the model is then as it is behind the lock."""
    query = select(RoundRow.id).where(RoundRow.model_id == model.id)
    query = query.order_by(RoundRow.number.desc()).limit(1)
    while True:
        row = locked(session, session.scalars(query).one())
        # While this one was waited for it may have ended, and another one been opened.
        if session.scalars(query).one() == row.id:
            session.refresh(model)
            return row
