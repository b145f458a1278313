"""Contributions on their way: upload plans, completion, expiry, states, the receipt."""

from __future__ import annotations

from datetime import datetime, timedelta
from statistics import fmean
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, selectinload

from coldfusion_server.db.tables import (
    ContributionFileRow,
    ContributionRow,
    HubUploadRow,
    RoundRow,
)
from coldfusion_server.events import outbox
from coldfusion_server.faults import fault_point
from coldfusion_server.services import late, paging, uploads
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import (
    find_model,
    find_round,
    may_read,
    searchable,
)
from coldfusion_server.services.swapping import swap
from coldfusion_server.services.tokens import Principal, require, signed_in
from coldfusion_shared.contributions import ContributionState, check_transition
from coldfusion_shared.errors import (
    AlreadyContributed,
    BaseOutdated,
    ContributionNotFound,
    Forbidden,
    UploadIncomplete,
)
from coldfusion_shared.schemas.common import Page
from coldfusion_shared.schemas.contributions import (
    Contribution,
    Effect,
    Finding,
    UploadPlan,
    Work,
)
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.schemas.gates import GateVerdict
from coldfusion_shared.schemas.tokens import Role


def get_plan(
    ctx: Context, contribution: str, principal: Principal | None, base_url: str
) -> UploadPlan:
    """Return fresh URLs for what has not arrived; asking keeps the upload alive."""
    with ctx.database.write() as session:
        row = _own(session, contribution, principal)
        if row.state == ContributionState.DECLARED:
            row.expires_at = ctx.now() + timedelta(hours=ctx.settings.upload_hours)
        load_files(row)
    return uploads.plan(ctx, row, base_url)


def complete(ctx: Context, contribution: str, principal: Principal | None) -> Contribution:
    """
    Say that all bytes were sent; screening is next. Harmless to repeat.

    Raises:
        UploadIncomplete: parts are missing.
        BaseOutdated: the round closed meanwhile.
    """
    _check_arrived(ctx, contribution, principal)
    with ctx.database.write() as session:
        row = _own(session, contribution, principal)
        if row.state != ContributionState.DECLARED:
            return to_schema(row)
        now = ctx.now()
        newest = lock_round(session, row)
        # Another machine may have said so while this one waited for the lock.
        if row.state != ContributionState.DECLARED:
            return to_schema(row)
        outdated = why_too_late(session, row, newest)
        if outdated is None:
            move(session, now, row, ContributionState.COMPLETED, completed_at=now)
            fault_point(ctx.settings, "contribution.completing")
            return to_schema(row)
        reject(session, now, row, outdated.message, outdated.hint)
        keys = uploads.upload_keys(row)
    for key in keys:
        ctx.store.discard_upload(key)
    # Raised behind the block: the rejection itself has to be kept.
    raise outdated


def _check_arrived(ctx: Context, contribution: str, principal: Principal | None) -> None:
    """Raise `UploadIncomplete` unless the store has all parts; no transaction waits for it."""
    with ctx.database.read() as session:
        row = _own(session, contribution, principal)
        load_files(row)
    missing = uploads.missing_parts(ctx, row) if row.state == ContributionState.DECLARED else []
    if missing:
        raise UploadIncomplete(
            f"Still missing: {', '.join(missing)}.",
            hint="Ask for the upload plan and send what it lists.",
        )


def get_contribution(ctx: Context, contribution: str, principal: Principal | None) -> Contribution:
    """Return one contribution: its receipt."""
    with ctx.database.read() as session:
        shown = to_schema(find(session, contribution, principal))
    return uploads.with_progress(ctx, [shown])[0]


def list_contributions(
    ctx: Context,
    name: str,
    principal: Principal | None,
    window: paging.Window,
    *,
    round_number: str | None = None,
    state: ContributionState | None = None,
    contributor: str | None = None,
) -> Page[Contribution]:
    """Return the model's contributions, newest first; `contributor` is a name or ``me``."""
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        query = receipts().where(ContributionRow.model_id == model.id)
        if round_number is not None:
            query = query.where(
                ContributionRow.round_id == find_round(session, model, round_number).id
            )
        if state is not None:
            query = query.where(ContributionRow.state == state)
        if contributor == "me":
            query = query.where(
                ContributionRow.contributor_id == signed_in(principal).contributor_id
            )
        elif contributor is not None:
            query = query.where(ContributionRow.contributor.has(name=contributor))
        found = paging.page(session, query, ContributionRow.number, window, to_schema)
    return found.model_copy(update={"items": uploads.with_progress(ctx, found.items)})


def expire_uploads(ctx: Context) -> int:
    """Give up the uploads whose time has run out, and free their bytes; return how many."""
    with ctx.database.read() as session:
        due = session.scalars(
            select(ContributionRow.id).where(
                ContributionRow.state == ContributionState.DECLARED,
                ContributionRow.expires_at <= ctx.now(),
            )
        ).all()
    return sum(_expire(ctx, contribution) for contribution in due)


def _expire(ctx: Context, contribution: str) -> bool:
    """Give up one upload, in a transaction of its own, unless it has gone on meanwhile."""
    with ctx.database.write() as session:
        row = session.scalars(
            select(ContributionRow).where(ContributionRow.id == contribution)
        ).one()
        # First the round, then its contribution: the order of all who lock both.
        lock_round(session, row)
        if row.state != ContributionState.DECLARED or row.expires_at > ctx.now():
            return False
        move(
            session,
            ctx.now(),
            row,
            ContributionState.EXPIRED,
            decided_at=ctx.now(),
            reason="the upload was not finished in time",
            hint="Send it again with the same command.",
            idempotency_key=freed_key(row),
        )
        keys = uploads.upload_keys(row)
    fault_point(ctx.settings, "contribution.expired")
    for key in keys:
        ctx.store.discard_upload(key)
    return True


def sweep_uploads(ctx: Context) -> int:
    """Remove the bytes of uploads that nothing waits for any more; return how many there were."""
    abandoned = abandoned_uploads(ctx)
    for key in abandoned:
        ctx.store.discard_upload(key)
    return len(abandoned)


def abandoned_uploads(ctx: Context) -> list[str]:
    """
    Return the keys of uploads that nothing waits for any more.

    A contribution that was decided on while its bytes were arriving leaves some behind.
    """
    keys = ctx.store.pending_uploads()
    needed = (ContributionState.DECLARED, ContributionState.COMPLETED)
    with ctx.database.read() as session:
        # First what is not declared yet: what is declared in between is found in the second.
        waiting = set(session.scalars(select(HubUploadRow.id)))
        of_contributions = select(ContributionRow.id).where(ContributionRow.state.in_(needed))
        waiting |= set(session.scalars(of_contributions))
        taken_over = (
            select(ContributionFileRow.upload)
            .join(ContributionRow, ContributionRow.id == ContributionFileRow.contribution_id)
            .where(ContributionRow.state.in_(needed), ContributionFileRow.upload.is_not(None))
        )
        waiting |= {key.split(".", 1)[0] for key in session.scalars(taken_over) if key}
    # Listed before the database was asked: an upload that began in between is not in the list.
    return [key for key in keys if key.split(".", 1)[0] not in waiting]


def move(
    session: Session, now: datetime, row: ContributionRow, target: ContributionState, **changes: Any
) -> None:
    """
    Take a contribution to `target` in the caller's transaction, and tell so.

    Raises:
        InvalidTransition: the table of transitions does not have it.
        StateConflict: it is not in the state any more that the caller knows.
    """
    check_transition(ContributionState(row.state), target)
    swap(session, row, target, f"Contribution {row.id}", **changes)
    tell(session, now, row, by=changes.get("decided_by"))


def accept(
    session: Session, now: datetime, row: ContributionRow, round_row: RoundRow, **changes: Any
) -> None:
    """Accept a contribution, behind what its round has; the caller holds the round's lock."""
    last = session.scalar(
        select(func.max(ContributionRow.position)).where(ContributionRow.round_id == round_row.id)
    )
    move(
        session,
        now,
        row,
        ContributionState.ACCEPTED,
        decided_at=now,
        reason=None,
        hint=None,
        position=(last or 0) + 1,
        **changes,
    )


def reject(
    session: Session,
    now: datetime,
    row: ContributionRow,
    reason: str,
    hint: str | None,
    *,
    again: bool = False,
    **changes: Any,
) -> None:
    """Reject a contribution; with `again` the same declaration may be made once more."""
    if again:
        changes["idempotency_key"] = freed_key(row)
    move(
        session,
        now,
        row,
        ContributionState.REJECTED,
        decided_at=now,
        reason=reason,
        hint=hint,
        **changes,
    )


def load_files(row: ContributionRow) -> None:
    """Read the row's files now: it is used after its session is gone."""
    list(row.files)


def lock_round(session: Session, row: ContributionRow) -> RoundRow:
    """
    Return the contribution's round, locked, with both as they are behind the lock.

    Rounds close under this lock, too. One that ends meanwhile may hand the contribution on.
    """
    while True:
        query = select(RoundRow).where(RoundRow.id == row.round_id).with_for_update()
        found = session.scalars(query.execution_options(populate_existing=True)).one()
        session.refresh(row)
        if row.round_id == found.id:
            # Its head may have moved, too.
            session.refresh(row.model)
            return found


def why_too_late(session: Session, row: ContributionRow, newest: RoundRow) -> BaseOutdated | None:
    """Return why the model does not take the contribution any more; null if it does."""
    try:
        late.check_in_time(late.line_of(session, row.model, newest), row.base_number)
    except BaseOutdated as error:
        return error
    return None


def receipts() -> Select[ContributionRow]:
    """Return the query of contributions with all that `to_schema` tells of them, none apart."""
    return select(ContributionRow).options(
        selectinload(ContributionRow.contributor),
        selectinload(ContributionRow.files),
        selectinload(ContributionRow.model),
        selectinload(ContributionRow.round),
    )


def to_schema(row: ContributionRow) -> Contribution:
    """Return the receipt; what has arrived of an upload under way `uploads.with_progress` tells."""
    waiting = row.state == ContributionState.DECLARED
    return Contribution(
        id=row.id,
        model=row.model.name,
        round=row.round.number,
        base=f"v{row.base_number}",
        contributor=row.contributor.name,
        state=ContributionState(row.state),
        encoding=row.encoding,
        frozen=row.frozen,
        files=[FileEntry(path=f.path, size=f.size, sha256=f.sha256) for f in row.files],
        work=Work.model_validate(row.work),
        declared_at=row.declared_at,
        completed_at=row.completed_at,
        decided_at=row.decided_at,
        expires_at=row.expires_at,
        uploaded_bytes=sum(file.size for file in row.files if file.here or not waiting),
        total_bytes=sum(file.size for file in row.files),
        reason=row.reason,
        hint=row.hint,
        findings=[Finding.model_validate(finding) for finding in row.findings],
        decided_by=row.decided_by,
        decision=row.decision,
        staleness=row.staleness,
        factor=row.factor,
        carried=row.carried,
        weight=row.weight,
        cosine=row.cosine,
        norm_ratio=row.norm_ratio,
        round_effect=_round_effect(row),
        own_effect=None if row.effect is None else Effect.model_validate(row.effect),
        result=None if row.result_number is None else f"v{row.result_number}",
        erased_at=min((f.erased_at for f in row.files if f.erased_at), default=None),
    )


def _round_effect(row: ContributionRow) -> Effect | None:
    """Return what the gate measured of the round that it was fused in."""
    if not row.chosen or row.round.gate is None:
        return None
    verdict = GateVerdict.model_validate(row.round.gate)
    if verdict.suite is None or not verdict.evaluators:
        return None
    found = verdict.evaluators
    errors = [one.standard_error for one in found]
    return Effect(
        suite=verdict.suite,
        base=fmean(one.base for one in found),
        score=fmean(one.candidate for one in found),
        difference=fmean(one.difference for one in found),
        # They score the same examples: more of them do not make it surer.
        standard_error=None if None in errors else fmean(error or 0.0 for error in errors),
    )


def already_contributed(row: ContributionRow) -> AlreadyContributed:
    """Return the error that says that these weights are those of `row`."""
    return AlreadyContributed(
        f"The same weights were contributed before, as {row.id} (round {row.round.number}, "
        f"{row.state}).",
        hint="These very weights count once, whoever sends them; finetune from the newest base to "
        "contribute again.",
    )


def freed_key(row: ContributionRow) -> str:
    """Return a key that nobody can send, so that the row's own can be used once more."""
    return f"{row.idempotency_key}\n{row.id}"


def find(session: Session, contribution: str, principal: Principal | None) -> ContributionRow:
    """Return the row of a contribution; raises `ContributionNotFound`."""
    query = select(ContributionRow).where(ContributionRow.id == searchable(contribution))
    row = session.scalar(query)
    if row is None or not may_read(row.model, principal):
        raise ContributionNotFound(
            f"There is no contribution {contribution[:40]!r}.",
            hint="See yours with: coldfusion-client status",
        )
    return row


def _own(session: Session, contribution: str, principal: Principal | None) -> ContributionRow:
    who = signed_in(principal)
    row = find(session, contribution, principal)
    require(who, Role.CONTRIBUTOR, row.model.name)
    if row.contributor_id != who.contributor_id:
        raise Forbidden("This contribution is somebody else's.")
    return row


def tell(
    session: Session,
    now: datetime,
    row: ContributionRow,
    what: str | None = None,
    by: str | None = None,
) -> None:
    """
    Add an event to the caller's transaction.

    Args:
        session: the transaction.
        now: the time.
        row: what it is about.
        what: what happened; null: it has come into its present state.
        by: the maintainer who decided so; null: nobody had to.
    """
    data = {
        "contribution": row.id,
        "round": row.round.number,
        "contributor": row.contributor.name,
        "state": ContributionState(row.state).value,
        "reason": row.reason,
    }
    if by is not None:
        data["by"] = by
    outbox.append(session, now, f"contribution.{what or data['state']}", row.model.name, data)
