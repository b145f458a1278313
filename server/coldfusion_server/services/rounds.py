"""Rounds: opened, closed, advanced. `advance` is the only writer of a round's state."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributionRow, ModelRow, RoundRow
from coldfusion_server.events import outbox
from coldfusion_server.services import leases, paging
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_model, find_round, policy_of
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import RoundNotClosable, StateConflict
from coldfusion_shared.fusion.plan import kinds
from coldfusion_shared.rounds import (
    RoundState,
    check_transition,
    deadline,
    is_due,
    missing_to_close,
)
from coldfusion_shared.schemas.common import Page
from coldfusion_shared.schemas.models import Policy
from coldfusion_shared.schemas.rounds import Round
from coldfusion_shared.schemas.tokens import Role

_ENDS = (
    RoundState.PUBLISHED,
    RoundState.REJECTED,
    RoundState.CANCELLED,
)


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
    current = row.state
    check_transition(RoundState(current), target)
    if lease is not None:
        leases.check(session, lease)
    if target in _ENDS:
        changes["finished_at"] = now
    swapped = session.execute(
        update(RoundRow)
        .where(RoundRow.id == row.id, RoundRow.state == current)
        .values(state=target, **changes)
        .returning(RoundRow.id)
    ).first()
    if swapped is None:
        raise StateConflict(f"Round {row.number} is not {current} any more.")
    session.refresh(row)
    name = session.scalar(select(ModelRow.name).where(ModelRow.id == row.model_id))
    data = {"round": row.number, "state": target.value, "reason": row.reason}
    outbox.append(session, now, f"round.{target.value}", name, data)


def open_next(session: Session, model: ModelRow, now: datetime) -> RoundRow:
    """Open the model's next round, on its newest base, in the caller's transaction."""
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


def close_by_hand(ctx: Context, name: str, number: str, principal: Principal | None) -> Round:
    """
    Close a round now, with what it has.

    Raises:
        RoundNotClosable: it has no accepted contribution, or too few for the fusion method.
        StateConflict: it is closed already.
    """
    require(principal, Role.MAINTAINER)
    with ctx.database.write() as session:
        model = find_model(session, name, principal)
        row = _locked(session, find_round(session, model, number).id)
        if row.state != RoundState.OPEN:
            raise StateConflict(f"Round {row.number} of {name} is {row.state}, not open.")
        _check_enough(model, row, count(session, row.id, ContributionState.ACCEPTED))
        _close(session, ctx.now(), model, row)
        return to_schema(session, model, row)


def close_due(ctx: Context) -> int:
    """Close every open round whose policy says so now; return how many."""
    with ctx.database.read() as session:
        candidates = session.scalars(
            select(RoundRow.id).where(RoundRow.state == RoundState.OPEN)
        ).all()
        due = [number for number in candidates if _is_due(ctx, session, number)]
    return sum(_close_if_due(ctx, number) for number in due)


def get_round(ctx: Context, name: str, number: str, principal: Principal | None) -> Round:
    """Return one round, by number or ``open``."""
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        return to_schema(session, model, find_round(session, model, number))


def list_rounds(
    ctx: Context, name: str, principal: Principal | None, window: paging.Window
) -> Page[Round]:
    """Return the model's rounds, newest first."""
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        query = select(RoundRow).where(RoundRow.model_id == model.id)
        return paging.page(
            session, query, RoundRow.id, window, lambda row: to_schema(session, model, row)
        )


def count(session: Session, round_id: int, *states: ContributionState) -> int:
    """Return how many contributions of the round are in one of `states`."""
    number = session.scalar(
        select(func.count())
        .select_from(ContributionRow)
        .where(ContributionRow.round_id == round_id, ContributionRow.state.in_(states))
    )
    return number or 0


def _check_enough(model: ModelRow, row: RoundRow, accepted: int) -> None:
    recipe = policy_of(model).recipe()
    kind = kinds(recipe)
    fewest = kind.method.minimum(kind.parameters)
    if accepted < fewest:
        have = "no accepted contribution" if not accepted else f"{accepted} accepted"
        raise RoundNotClosable(
            f"Round {row.number} of {model.name} has {have} yet; {recipe.method} needs {fewest}.",
            hint=f"See what is on its way: coldfusion-client status {model.name}",
        )


def policy_in_force(model: ModelRow, row: RoundRow) -> Policy:
    """Return the policy that the round was closed by, or the model's while it is open."""
    return policy_of(model) if row.policy is None else Policy.model_validate(row.policy)


def to_schema(session: Session, model: ModelRow, row: RoundRow) -> Round:
    """Return what the API shows of a round."""
    policy = policy_in_force(model, row)
    accepted = count(session, row.id, ContributionState.ACCEPTED, ContributionState.FUSED)
    is_open = row.state == RoundState.OPEN
    return Round(
        model=model.name,
        number=row.number,
        state=RoundState(row.state),
        base=f"v{row.base_number}",
        result=None if row.result_number is None else f"v{row.result_number}",
        opened_at=row.opened_at,
        closed_at=row.closed_at,
        finished_at=row.finished_at,
        closes_at=deadline(policy, row.opened_at) if is_open else None,
        accepted=accepted,
        waiting=count(
            session,
            row.id,
            ContributionState.DECLARED,
            ContributionState.COMPLETED,
            ContributionState.QUARANTINED,
        ),
        missing=missing_to_close(policy, accepted) if is_open else 0,
        fused_bytes=row.fused_bytes,
        total_bytes=row.total_bytes,
        reason=row.reason,
    )


def _is_due(ctx: Context, session: Session, round_id: int) -> bool:
    row = session.get_one(RoundRow, round_id)
    model = session.get_one(ModelRow, row.model_id)
    # What has arrived whole waits for its screening, a matter of seconds, rather than come too
    # late through no fault of its contributor's.
    if count(session, round_id, ContributionState.COMPLETED):
        return False
    accepted = count(session, round_id, ContributionState.ACCEPTED)
    return is_due(policy_of(model), accepted, row.opened_at, ctx.now())


def _close_if_due(ctx: Context, round_id: int) -> bool:
    with ctx.database.write() as session:
        row = _locked(session, round_id)
        if row.state != RoundState.OPEN or not _is_due(ctx, session, round_id):
            return False
        _close(session, ctx.now(), session.get_one(ModelRow, row.model_id), row)
        return True


def _close(session: Session, now: datetime, model: ModelRow, row: RoundRow) -> None:
    advance(session, now, row, RoundState.CLOSED, closed_at=now, policy=model.policy)


def _locked(session: Session, round_id: int) -> RoundRow:
    """Return the round, locked: contributions are accepted under this lock, too."""
    query = select(RoundRow).where(RoundRow.id == round_id).with_for_update()
    # As it is behind the lock: the session may know it as it was before.
    return session.scalars(query.execution_options(populate_existing=True)).one()
