"""Closing rounds: by policy, by hand, at a set time; what a round takes and what it leaves."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributionRow, ModelRow, RoundRow
from coldfusion_server.events import audit, outbox
from coldfusion_server.faults import fault_point
from coldfusion_server.services import contributions, late, rechecking, rounds, standing
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_model, find_round, policy_of
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import (
    BaseOutdated,
    ColdFusionError,
    DatabaseUnavailable,
    InvalidRequest,
    RoundNotClosable,
    StateConflict,
)
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.rounds.closing import Choice, Waiting, choose, deadline, is_due
from coldfusion_shared.schemas.models import Policy
from coldfusion_shared.schemas.rounds import Round
from coldfusion_shared.schemas.tokens import Role

log = structlog.get_logger(__name__)

# A time to close at that is farther ahead is a mistake.
FARTHEST = timedelta(days=366)
# So long a round that is due waits for the screening of what had arrived.
SCREENING = timedelta(minutes=10)


def close_due(ctx: Context) -> int:
    """Close every open round whose policy says so now; return how many."""
    with ctx.database.read() as session:
        candidates = session.scalars(
            select(RoundRow.id).where(RoundRow.state == RoundState.OPEN).order_by(RoundRow.id)
        ).all()
    return sum(_close_one(ctx, number) for number in candidates)


def _close_one(ctx: Context, round_id: int) -> bool:
    """Close a round if it is due; a model whose round cannot be looked at holds up no other."""
    try:
        with ctx.database.read() as session:
            due = _is_due(ctx, session, round_id)
        return due and _close_if_due(ctx, round_id)
    except DatabaseUnavailable:
        raise
    except ColdFusionError as error:
        log.error("round cannot be closed", round=round_id, why=error.message)
    except Exception:
        log.exception("closing broke", round=round_id)
    return False


def close_by_hand(
    ctx: Context,
    name: str,
    number: str,
    principal: Principal | None,
    at: datetime | None = None,
) -> Round:
    """
    Close a round now, with what it has, or at a time that is still to come.

    Args:
        ctx: the service's surroundings.
        name: owner/name.
        number: the round's, or ``open``.
        principal: who asks.
        at: when; null: now.

    Raises:
        RoundNotClosable: it has no accepted contribution, or too few for the fusion method, be it
            because some stick out of it and are in quarantine now.
        StateConflict: it is closed already.
        InvalidRequest: the time is past, or too far ahead.
    """
    who = require(principal, Role.MAINTAINER, name)
    refused: RoundNotClosable | None = None
    with ctx.database.write() as session:
        model = find_model(session, name, principal)
        row = rounds.locked(session, find_round(session, model, number).id)
        session.refresh(model)
        if row.state != RoundState.OPEN:
            raise StateConflict(f"Round {row.number} of {name} is {row.state}, not open.")
        if at is None:
            _reject_late(ctx, session, model, row)
            policy, waiting = policy_of(model), rounds.waiting(session, row)
            choice, held = choose(policy, waiting), 0
            if _can_fuse(policy, waiting, choice):
                settled = rechecking.settle(ctx, session, model, row)
                choice, held = settled.choice, settled.held
            if _can_fuse(policy, waiting, choice):
                # So that the policy's minimum is not asked for if some is withdrawn.
                row.close_at = ctx.now()
                _close(ctx, session, model, row, choice)
                audit.note(session, ctx.now(), who, "round.closed", model=name, subject=row.number)
            else:
                row.reason = _why_open(held) or row.reason
                refused = _not_closable(model, row, waiting, choice, held)
        else:
            _check_ahead(ctx, at)
            if row.close_at != at:
                _schedule(ctx, session, name, row, at, who)
        shown = rounds.to_schema(session, model, row, ctx.now())
    if refused is not None:
        # Raised behind the block: what was too late is rejected in any case.
        raise refused
    return shown


def _schedule(
    ctx: Context, session: Session, name: str, row: RoundRow, at: datetime, who: Principal
) -> None:
    row.close_at = at
    data = {"round": row.number, "at": at.isoformat(), "by": who.name}
    outbox.append(session, ctx.now(), "round.scheduled", name, data)
    audit.note(session, ctx.now(), who, "round.scheduled", model=name, subject=row.number, to=at)
    session.flush()


def closed_by_hand(row: RoundRow) -> bool:
    """Return whether a maintainer had the round closed with what it had, at once or at a time."""
    return row.close_at is not None and row.closed_at is not None and row.close_at <= row.closed_at


def _check_ahead(ctx: Context, at: datetime) -> None:
    if at <= ctx.now():
        raise InvalidRequest(
            f"{at.isoformat(timespec='seconds')} is past.",
            hint="Name a time to come, or none to close the round now.",
        )
    if at - ctx.now() > FARTHEST:
        raise InvalidRequest(
            f"{at.isoformat(timespec='seconds')} is more than {FARTHEST.days} days ahead.",
            hint="Name an earlier time; it can be set again later.",
        )


def _can_fuse(policy: Policy, waiting: Sequence[Waiting], choice: Choice) -> bool:
    chosen = set(choice.chosen)
    return rounds.can_fuse(policy, [one.contributor for one in waiting if one.id in chosen])


def _not_closable(
    model: ModelRow, row: RoundRow, waiting: Sequence[Waiting], choice: Choice, held: int
) -> RoundNotClosable:
    policy = policy_of(model)
    fewest, found = rounds.fewest(policy), len(choice.chosen)
    if held:
        return RoundNotClosable(
            f"Round {row.number} of {model.name} stays open. {_why_open(held)} It has {found} "
            f"accepted now; {policy.method} needs {fewest}.",
            hint=f"See them, and decide: coldfusion-server contribution list {model.name}",
        )
    if found >= fewest:
        return RoundNotClosable(
            f"All that round {row.number} of {model.name} would take ({found} accepted) weighs 0 "
            "by contributor_weights: there is nothing to fuse.",
            hint="Wait for a contribution that counts, or change the policy's contributor_weights.",
        )
    have = "no accepted contribution" if not found else f"{found} accepted"
    if choice.kept:
        have += f" that its policy lets in ({len(choice.kept)} are kept for later)"
    return RoundNotClosable(
        f"Round {row.number} of {model.name} has {have} yet; {policy.method} needs {fewest}.",
        hint=f"See what is on its way: coldfusion-client status {model.name}",
    )


def _is_due(ctx: Context, session: Session, round_id: int) -> bool:
    row = session.get_one(RoundRow, round_id)
    model = session.get_one(ModelRow, row.model_id)
    policy, waiting = policy_of(model), rounds.waiting(session, row)
    if not is_due(policy, waiting, row.opened_at, row.close_at, ctx.now()):
        return False
    choice = choose(policy, waiting)
    if not _can_fuse(policy, waiting, choice):
        return False
    is_full = policy.max_contributions is not None and (
        len(choice.chosen) >= policy.max_contributions
    )
    return is_full or not _is_awaited(ctx, session, row, policy, waiting)


def _is_awaited(
    ctx: Context, session: Session, row: RoundRow, policy: Policy, waiting: Sequence[Waiting]
) -> bool:
    """
    Return whether a round that is due waits for what is being screened.

    What had arrived whole before it was due should not come too late through no fault of its
    contributor's. That is a matter of seconds: after `SCREENING` it is not waited for any more.
    """
    arrived = session.scalars(
        select(ContributionRow.completed_at).where(
            ContributionRow.round_id == row.id,
            ContributionRow.state == ContributionState.COMPLETED,
        )
    ).all()
    if not arrived:
        return False
    since = _due_since(session, row, policy, waiting, ctx.now())
    return ctx.now() < since + SCREENING and any(at is None or at <= since for at in arrived)


def _due_since(
    session: Session, row: RoundRow, policy: Policy, waiting: Sequence[Waiting], now: datetime
) -> datetime:
    """Return when a round that is due `now` became it, as far as its contributions tell."""
    decided = {item.id: item.decided_at or row.opened_at for item in _accepted(session, row)}
    set_times = (deadline(policy, row.opened_at), row.close_at)
    times = sorted({row.opened_at, *decided.values(), *(at for at in set_times if at is not None)})
    times = [at for at in times if row.opened_at <= at < now]

    def was_due(at: datetime) -> bool:
        had = [one for one in waiting if decided[one.id] <= at]
        return is_due(policy, had, row.opened_at, row.close_at, at)

    first = bisect_left(times, True, key=was_due)
    return times[first] if first < len(times) else now


def _close_if_due(ctx: Context, round_id: int) -> bool:
    with ctx.database.write() as session:
        row = rounds.locked(session, round_id)
        if row.state != RoundState.OPEN or not _is_due(ctx, session, round_id):
            return False
        model = session.get_one(ModelRow, row.model_id)
        if _reject_late(ctx, session, model, row) and not _is_due(ctx, session, round_id):
            return False
        settled = rechecking.settle(ctx, session, model, row)
        if settled.held and not _is_due(ctx, session, round_id):
            row.reason = _why_open(settled.held)
            return False
        _close(ctx, session, model, row, settled.choice)
        fault_point(ctx.settings, "round.closing")
    fault_point(ctx.settings, "round.closed")
    return True


def _reject_late(ctx: Context, session: Session, model: ModelRow, row: RoundRow) -> bool:
    """Reject what the policy in force does not take any more; return whether there was any."""
    line = late.line_of(session, model, row)
    rejected = False
    for item in _accepted(session, row):
        try:
            late.check_in_time(line, item.base_number)
        except BaseOutdated as error:
            contributions.reject(session, ctx.now(), item, error.message, error.hint)
            rejected = True
    return rejected


def _close(ctx: Context, session: Session, model: ModelRow, row: RoundRow, choice: Choice) -> None:
    """Fix what the round fuses; what it leaves waits for the next one and is told why."""
    now = ctx.now()
    line = late.line_of(session, model, row)
    chosen = set(choice.chosen)
    for item in _accepted(session, row):
        if item.id in chosen:
            lateness = late.expected(line, item.base_number)
            item.chosen = True
            item.staleness, item.factor = lateness.staleness, lateness.factor
            item.reason = None
        else:
            keep(ctx, session, item, choice.kept[item.id])
    rounds.advance(
        session, now, row, RoundState.CLOSED, closed_at=now, policy=model.policy, reason=None
    )


def _why_open(held: int) -> str | None:
    """Return why a round that was to close did not, of which so many went into quarantine."""
    if not held:
        return None
    told = "1 contribution sticks" if held == 1 else f"{held} contributions stick"
    return f"{told} out of it, and went into quarantine as it was to close."


def keep(ctx: Context, session: Session, item: ContributionRow, reason: str) -> None:
    """Leave an accepted contribution for the next round, and tell why."""
    item.chosen, item.reason = False, reason
    item.staleness = item.factor = None
    standing.forget(item)
    contributions.tell(session, ctx.now(), item, "kept")


def _accepted(session: Session, row: RoundRow) -> list[ContributionRow]:
    query = select(ContributionRow).where(
        ContributionRow.round_id == row.id, ContributionRow.state == ContributionState.ACCEPTED
    )
    return list(session.scalars(query.order_by(ContributionRow.position)))
