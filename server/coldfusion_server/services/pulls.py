"""
Pull requests of the hub door: pushed files on their way to be a contribution.

As soon as the files of one make a whole contribution it is declared, with all that holds of any
declaration, and its bytes, which have arrived before, are handed over in the same transaction. From
then on the contribution tells what becomes of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributionRow, HubPullRow, ModelRow, RoundRow
from coldfusion_server.faults import fault_point
from coldfusion_server.services import contributions, late, rounds, staging
from coldfusion_server.services.context import Context
from coldfusion_server.services.declaring import add_row
from coldfusion_server.services.lookup import find_model
from coldfusion_server.services.pulled import Pull, commit_id, entries, shown, visible
from coldfusion_server.services.pushed_files import encoding_of, missing_of
from coldfusion_server.services.references import WAITED_FOR, refer
from coldfusion_server.services.revisions import find_revision
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import (
    BaseOutdated,
    EncodingRefused,
    Forbidden,
    InvalidRequest,
    QuotaExceeded,
    StateConflict,
    UploadIncomplete,
)
from coldfusion_shared.schemas.contributions import Declaration, Work
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.schemas.tokens import Role

# Of one contributor, that no whole contribution has come to: nobody needs many.
MAX_DRAFTS = 50
# As long as what a declaration says of the work.
SAID_LETTERS = 500


@dataclass(frozen=True)
class Push:
    """
    What somebody pushes.

    Attributes:
        title: one line of it.
        description: what else there is to say.
        files: those that a contribution consists of; their bytes have arrived.
        client: program and version that pushes.
    """

    title: str
    description: str
    files: tuple[FileEntry, ...]
    client: str | None = None


def open_pull(
    ctx: Context, name: str, principal: Principal | None, title: str, description: str
) -> Pull:
    """
    Make a pull request that files are pushed to afterwards.

    Raises:
        QuotaExceeded: the contributor has too many that nothing has come to.
    """
    who = require(principal, Role.CONTRIBUTOR, name)
    with ctx.database.write() as session:
        model = find_model(session, name, principal)
        # Numbers are given out behind the round's lock.
        rounds.newest(session, model)
        return shown(session, _new(ctx, session, model, who, title, description))


def commit(
    ctx: Context,
    name: str,
    principal: Principal | None,
    push: Push,
    *,
    number: int | None = None,
    base: str | None = None,
) -> Pull:
    """
    Push files to a pull request; what is a whole contribution then is declared and completed.

    The same push again changes nothing, and of equal ones at once one does.

    Args:
        ctx: the service's surroundings.
        name: the model's.
        principal: who pushes.
        push: the files, and what is said of them.
        number: the pull request's; null: a new one.
        base: the revision that the files were made from; null: as the pull request has it, or the
            head.

    Raises:
        ContributionNotFound, Forbidden: there is none of that number, or it is somebody else's.
        StateConflict: it is a contribution of other files already.
        UploadIncomplete: the bytes of a file have not arrived.
        InvalidRequest: the files are no contribution.
        BaseOutdated, AlreadyContributed, TooLarge, QuotaExceeded, StorageFull, EncodingRefused: as
            for any declaration.
    """
    who = require(principal, Role.CONTRIBUTOR, name)
    lacking = _lacking(ctx, name, principal, push)
    with _hints_for_pushers(), ctx.database.write() as session:
        refer(session)
        model = find_model(session, name, principal)
        newest = rounds.newest(session, model)
        row = None if number is None else _own(session, model, who, number)
        if row is not None and base == commit_id(row):
            base = None  # It follows on what was pushed before.
        made_from = None if base is None else find_revision(session, model, base).number
        if number is None:
            row = _same(session, model, who, push, made_from)
        if row is not None and row.contribution_id is not None:
            _check_same(row, push)
            return shown(session, row)
        if lacking is not None:
            # It may never have been taken, for a reason that its client has not shown.
            staging.check_wanted(ctx, session, model, who, _wanted(push))
            raise lacking
        if row is None:
            row = _new(ctx, session, model, who, push.title, push.description)
        if made_from is not None or row.base_number is None:
            row.base_number = model.current if made_from is None else made_from
        # A new one: what is changed inside of a column's value is not noticed.
        row.files = {**row.files, **_columns(push.files)}
        row.commit_id = commit_id(row)
        _declare_if_whole(ctx, session, newest, row, who, push.client)
        if number is None and row.contribution_id is None:
            raise InvalidRequest(
                f"This push is no whole contribution: {missing_of(row.files)} is missing.",
                hint="Push it together with the rest.",
            )
        pull = _with_prospect(session, newest, shown(session, row), row)
    fault_point(ctx.settings, "pull.committed")
    return pull


def _lacking(
    ctx: Context, name: str, principal: Principal | None, push: Push
) -> UploadIncomplete | None:
    """Return what has not arrived, which is no fault where the push was taken before."""
    try:
        staging.check_arrived(ctx, name, principal, _wanted(push))
    except UploadIncomplete as error:
        return error
    return None


def _wanted(push: Push) -> list[staging.Wanted]:
    return [staging.Wanted(file.sha256, file.size) for file in push.files]


@contextmanager
def _hints_for_pushers() -> Iterator[None]:
    """Name the program that can do what a refusal's hint says: the hub's clients cannot."""
    try:
        yield
    except (BaseOutdated, EncodingRefused) as error:
        hint = f"{error.hint} The command is coldfusion-client push, with the model's folder."
        raise type(error)(error.message, hint=hint) from None


def _declare_if_whole(
    ctx: Context,
    session: Session,
    newest: RoundRow,
    row: HubPullRow,
    who: Principal,
    client: str | None,
) -> None:
    encoding = encoding_of(row.files)
    if encoding is None:
        return
    files = entries(row.files)
    sent = staging.take(session, row.model, who, files)
    declaration = Declaration(
        base=f"v{row.base_number}",
        encoding=encoding,
        files=files,
        work=Work(
            client=client,
            settings={"pull request": row.number, "title": row.title[:SAID_LETTERS]},
        ),
    )
    key = f"pull-{row.id}-{commit_id(row)}"
    made = add_row(ctx, session, row.model, newest, declaration, key, who, sent)
    now = ctx.now()
    contributions.move(session, now, made, ContributionState.COMPLETED, completed_at=now)
    row.contribution_id = made.id
    session.flush()
    fault_point(ctx.settings, "pull.committing")


def _with_prospect(session: Session, newest: RoundRow, pull: Pull, row: HubPullRow) -> Pull:
    """Return `pull` with what will become of it, if it is a contribution by now."""
    if row.contribution_id is None or row.base_number is None:
        return pull
    line = late.line_of(session, row.model, newest)
    return replace(pull, prospect=late.prospect(line, row.base_number).sentence)


def _new(
    ctx: Context, session: Session, model: ModelRow, who: Principal, title: str, description: str
) -> HubPullRow:
    """Make a row; the caller holds the lock of the model's newest round."""
    drafts = (
        select(func.count())
        .select_from(HubPullRow)
        .where(
            HubPullRow.contributor_id == who.contributor_id,
            HubPullRow.contribution_id.is_(None),
            # To older ones nobody comes back.
            HubPullRow.created_at > ctx.now() - timedelta(hours=ctx.settings.upload_hours),
        )
    )
    count = session.scalar(drafts) or 0
    if count >= MAX_DRAFTS:
        raise QuotaExceeded(
            f"You have {count} pull requests that are no contribution yet; {MAX_DRAFTS} are the "
            "most.",
            hint="Push the weights to one of them, with revision='refs/pr/NUMBER'.",
        )
    last = session.scalar(
        select(func.max(HubPullRow.number)).where(HubPullRow.model_id == model.id)
    )
    row = HubPullRow(
        model_id=model.id,
        number=(last or 0) + 1,
        contributor_id=who.contributor_id,
        title=title,
        description=description,
        files={},
        created_at=ctx.now(),
    )
    session.add(row)
    session.flush()
    return row


def _same(
    session: Session, model: ModelRow, who: Principal, push: Push, base: int | None
) -> HubPullRow | None:
    """Return the caller's own pull request of the very same, if it waits for its round still."""
    query = (
        select(HubPullRow)
        .join(ContributionRow, ContributionRow.id == HubPullRow.contribution_id)
        .where(
            HubPullRow.model_id == model.id,
            HubPullRow.contributor_id == who.contributor_id,
            HubPullRow.base_number == (model.current if base is None else base),
            ContributionRow.state.in_(WAITED_FOR),
        )
    )
    pushed = _columns(push.files)
    return next((row for row in session.scalars(query) if row.files == pushed), None)


def _own(session: Session, model: ModelRow, who: Principal, number: int) -> HubPullRow:
    row = visible(session, model, number, who)
    if row.contributor_id != who.contributor_id:
        raise Forbidden("This pull request is somebody else's.")
    return row


def _check_same(row: HubPullRow, push: Push) -> None:
    """Raise unless a contribution's pull request has the files already that are pushed to it."""
    pushed = _columns(push.files)
    if any(row.files.get(path) != file for path, file in pushed.items()):
        raise StateConflict(
            f"Pull request {row.number} is contribution {row.contribution_id} already; other "
            "weights are another contribution.",
            hint="Push them with create_pr=True, which makes a new pull request.",
        )


def _columns(files: Sequence[FileEntry]) -> dict[str, Any]:
    return {file.path: {"sha256": file.sha256, "size": file.size} for file in files}
