"""Pull requests of the hub door, as people and programs see them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Select, func, or_, select, true
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributionRow, ContributorRow, HubPullRow, ModelRow
from coldfusion_server.services import contributions
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_base, find_model, manifest_of, searchable
from coldfusion_server.services.references import WAITED_FOR
from coldfusion_server.services.tokens import Principal, may
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import BaseNotFound, ContributionNotFound
from coldfusion_shared.schemas.contributions import Contribution
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.schemas.tokens import Role
from coldfusion_shared.weights.layout import INDEX_FILE, is_weights

ID_LETTERS = 40
_VERIFIED = frozenset(
    {
        ContributionState.QUARANTINED,
        ContributionState.ACCEPTED,
        ContributionState.SET_ASIDE,
        ContributionState.FUSED,
    }
)
_REVISION = re.compile(r"refs/pr/([1-9][0-9]{0,8})")


class Status(StrEnum):
    """A pull request's state, in the hub's words."""

    DRAFT = "draft"
    OPEN = "open"
    MERGED = "merged"
    CLOSED = "closed"


@dataclass(frozen=True)
class Pull:
    """
    A pull request as people see it.

    Attributes:
        number: within its model.
        model: the model's name.
        contributor: whose it is.
        title: one line of it.
        description: what else they had to say.
        base: the base that it was made from; null: no commit has come yet.
        files: those that were pushed.
        contribution: what has become of it; null: it is no whole contribution yet.
        created_at: when it was made.
        commit: 40 hexadecimal digits that name its files.
        prospect: what will become of it, said to who has just pushed it.
    """

    number: int
    model: str
    contributor: str
    title: str
    description: str
    base: str | None
    files: tuple[FileEntry, ...]
    contribution: Contribution | None
    created_at: datetime
    commit: str
    prospect: str | None = None

    @property
    def status(self) -> Status:
        """Its state, by its contribution's."""
        if self.contribution is None:
            return Status.DRAFT
        if self.contribution.result is not None:
            return Status.MERGED
        return Status.OPEN if self.contribution.state in WAITED_FOR else Status.CLOSED


@dataclass(frozen=True)
class Folder:
    """
    The model folder that a pull request stands for.

    Attributes:
        commit: 40 hexadecimal digits that name it.
        created_at: when it was made.
        files: the pushed ones, and what is no weights of its base's, by path.
    """

    commit: str
    created_at: datetime
    files: tuple[FileEntry, ...]


def get_pull(ctx: Context, name: str, number: int, principal: Principal | None) -> Pull:
    """Return one pull request; raises `ContributionNotFound`."""
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        return shown(session, visible(session, model, number, principal))


def list_pulls(
    ctx: Context,
    name: str,
    principal: Principal | None,
    *,
    start: int = 0,
    limit: int = 50,
    contributor: str | None = None,
    is_open: bool | None = None,
) -> tuple[int, list[Pull]]:
    """Return how many pull requests there are, and those from place `start`, newest first."""
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        query = _seen(select(HubPullRow), model, principal)
        if contributor is not None:
            named = ContributorRow.name == searchable(contributor)
            query = query.where(HubPullRow.contributor.has(named))
        if is_open is not None:
            waits = _waits()
            query = query.where(waits if is_open else ~waits)
        count = session.scalar(select(func.count()).select_from(query.subquery())) or 0
        rows = session.scalars(query.order_by(HubPullRow.number.desc()).offset(start).limit(limit))
        return count, [shown(session, row) for row in rows]


def pull_number(revision: str) -> int | None:
    """Return the number in ``refs/pr/N``; null: it is another revision."""
    match = _REVISION.fullmatch(revision)
    return None if match is None else int(match[1])


def find_commit(ctx: Context, name: str, commit: str, principal: Principal | None) -> int | None:
    """Return the number of the pull request whose files `commit` names; null: of none."""
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        query = select(HubPullRow.number).where(HubPullRow.model_id == model.id)
        return session.scalar(query.where(HubPullRow.commit_id == searchable(commit)))


def folder_of(ctx: Context, name: str, number: int, principal: Principal | None) -> Folder:
    """
    Return the model folder of a pull request, for its owner, maintainers and evaluators.

    Raises:
        BaseNotFound: there is none, it is none of the caller's business, or its files are not kept.
    """
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        row = _row(session, model, number)
        if row is None or not _may_read_files(row, principal):
            raise _no_revision(name, number, "There is none, or you may not see its files.")
        if row.contribution_id is None or row.base_number is None:
            raise _no_revision(name, number, "It is no whole contribution yet.")
        base = manifest_of(find_base(session, model, f"v{row.base_number}"))
        pushed = entries(row.files)
        kept_here = _are_kept(_contribution(session, row))
        commit, created_at = commit_id(row), row.created_at
    if not kept_here:
        raise _no_revision(name, number, "Its files are not kept, or wait for their screening.")
    replaced = {file.path for file in pushed} | {INDEX_FILE}
    kept = [f for f in base.files if f.path not in replaced and not is_weights(f.path)]
    files = sorted([*kept, *pushed], key=lambda file: file.path)
    return Folder(commit, created_at, tuple(files))


def readable_pulls(
    ctx: Context, name: str, principal: Principal | None, limit: int = 200
) -> list[tuple[int, str]]:
    """Return number and commit of the newest pull requests whose files `principal` may read."""
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        query = _seen(select(HubPullRow), model, principal)
        query = query.where(HubPullRow.contribution_id.is_not(None))
        if principal is None or not _reads_all(principal, name):
            mine = None if principal is None else principal.contributor_id
            query = query.where(HubPullRow.contributor_id == mine)
        rows = session.scalars(query.order_by(HubPullRow.number.desc()).limit(limit))
        return [(row.number, commit_id(row)) for row in rows]


def visible(
    session: Session, model: ModelRow, number: int, principal: Principal | None
) -> HubPullRow:
    """Return the row of a pull request; raises `ContributionNotFound`."""
    query = _seen(select(HubPullRow), model, principal)
    row = session.scalar(query.where(HubPullRow.number == number))
    if row is None:
        raise ContributionNotFound(f"{model.name} has no pull request {number}.")
    return row


def _row(session: Session, model: ModelRow, number: int) -> HubPullRow | None:
    query = select(HubPullRow).where(HubPullRow.model_id == model.id)
    return session.scalar(query.where(HubPullRow.number == number))


def _seen(
    query: Select[HubPullRow], model: ModelRow, principal: Principal | None
) -> Select[HubPullRow]:
    """Let `query` see what `principal` may: contributions everybody, drafts who makes them."""
    return query.where(HubPullRow.model_id == model.id, _has_come(model, principal))


def _has_come(model: ModelRow, principal: Principal | None) -> ColumnElement[bool]:
    come = HubPullRow.contribution_id.is_not(None)
    if principal is None:
        return come
    if may(principal, Role.MAINTAINER, model.name):
        return true()
    return or_(come, HubPullRow.contributor_id == principal.contributor_id)


def _waits() -> ColumnElement[bool]:
    """Return the condition of pull requests that are not decided on."""
    waiting = select(ContributionRow.id).where(ContributionRow.state.in_(WAITED_FOR))
    return or_(HubPullRow.contribution_id.is_(None), HubPullRow.contribution_id.in_(waiting))


def _may_read_files(row: HubPullRow, principal: Principal | None) -> bool:
    if principal is None:
        return False
    return row.contributor_id == principal.contributor_id or _reads_all(principal, row.model.name)


def _reads_all(principal: Principal, model: str) -> bool:
    return any(may(principal, role, model) for role in (Role.MAINTAINER, Role.EVALUATOR))


def _are_kept(made: ContributionRow | None) -> bool:
    """
    Return whether the contributor's own bytes are the objects that the digests name.

    Until they were verified anybody could name the digest of what somebody else has sent.
    """
    if made is None or any(file.erased_at is not None for file in made.files):
        return False
    return made.state in _VERIFIED or made.result_number is not None


def _no_revision(model: str, number: int, why: str) -> BaseNotFound:
    return BaseNotFound(f"{model} has no revision refs/pr/{number} for you. {why}")


def _contribution(session: Session, row: HubPullRow) -> ContributionRow | None:
    if row.contribution_id is None:
        return None
    query = contributions.receipts().where(ContributionRow.id == row.contribution_id)
    return session.scalars(query).one()


def shown(session: Session, row: HubPullRow) -> Pull:
    """Return a pull request as people see it."""
    made = _contribution(session, row)
    return Pull(
        number=row.number,
        model=row.model.name,
        contributor=row.contributor.name,
        title=row.title,
        description=row.description,
        base=None if row.base_number is None else f"v{row.base_number}",
        files=tuple(entries(row.files)),
        contribution=None if made is None else contributions.to_schema(made),
        created_at=row.created_at,
        commit=commit_id(row),
    )


def commit_id(row: HubPullRow) -> str:
    """Return 40 hexadecimal digits that name the files as they are now."""
    named = json.dumps([row.id, row.base_number, row.files], sort_keys=True)
    return hashlib.sha256(named.encode()).hexdigest()[:ID_LETTERS]


def entries(files: Mapping[str, Any]) -> list[FileEntry]:
    """Return the files of a row."""
    return [FileEntry(path=path, **files[path]) for path in sorted(files)]
