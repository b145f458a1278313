"""
Revisions: what the hub's clients call the versions of a model.

``main`` and ``HEAD`` are the head, ``v7`` is a tag, and a base's commit id is the beginning of its
digest, so that it names the same bytes for ever. ``refs/pr/3`` is a contribution that was pushed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import BaseFileRow, BaseRow, ModelRow
from coldfusion_server.services import bases, head_moves, paging, pulled
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import LATEST, find_base, find_model
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.errors import BaseNotFound, FileNotInBase
from coldfusion_shared.schemas.common import Page
from coldfusion_shared.schemas.files import FileEntry

# Hexadecimal digits of a commit id.
COMMIT_LETTERS = 40
MAIN = "main"
_HEADS = frozenset({MAIN, "HEAD", "refs/heads/main"})
_COMMIT = re.compile(rf"[0-9a-f]{{{COMMIT_LETTERS}}}")


@dataclass(frozen=True)
class Revision:
    """
    A set of files that a revision names.

    Attributes:
        model: the model's name.
        name: what people call it, such as v7.
        commit: 40 hexadecimal digits, for ever the same files.
        created_at: when it was published.
        files: ordered by path.
        taken_back: what to tell somebody who asks for a base that the head has left; null: it has
            not.
    """

    model: str
    name: str
    commit: str
    created_at: datetime
    files: tuple[FileEntry, ...]
    taken_back: str | None = None

    def file(self, path: str) -> FileEntry:
        """Return one of its files; raises `FileNotInBase`."""
        for file in self.files:
            if file.path == path:
                return file
        raise FileNotInBase(f"{self.model} {self.name} has no file {path[:200]!r}.")


@dataclass(frozen=True)
class Commit:
    """
    A base as an entry of its model's history.

    Attributes:
        version: v<n>.
        commit: 40 hexadecimal digits.
        created_at: when it was published.
        title: what happened, one line.
        authors: names of those whose contributions went in.
    """

    version: str
    commit: str
    created_at: datetime
    title: str
    authors: tuple[str, ...]


def revision_of(ctx: Context, name: str, revision: str, principal: Principal | None) -> Revision:
    """
    Return what `revision` of a model names.

    Raises:
        ModelNotFound: there is no such model, or `principal` may not know of it.
        BaseNotFound: it has no such revision.
    """
    number = _pushed(ctx, name, revision, principal)
    if number is not None:
        folder = pulled.folder_of(ctx, name, number, principal)
        pull = f"refs/pr/{number}"
        return Revision(name, pull, folder.commit, folder.created_at, folder.files)
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        row = find_revision(session, model, revision)
        files = session.scalars(
            select(BaseFileRow).where(BaseFileRow.base_id == row.id).order_by(BaseFileRow.path)
        )
        return Revision(
            model=name,
            name=f"v{row.number}",
            commit=commit_of(row.digest),
            created_at=row.created_at,
            files=tuple(
                FileEntry.model_construct(path=file.path, size=file.size, sha256=file.sha256)
                for file in files
            ),
            taken_back=_taken_back(session, model, row),
        )


def find_revision(session: Session, model: ModelRow, revision: str) -> BaseRow:
    """Return the base that `revision` names; raises `BaseNotFound`."""
    if revision in _HEADS:
        return find_base(session, model, LATEST)
    if _COMMIT.fullmatch(revision):
        query = select(BaseRow).where(
            BaseRow.model_id == model.id,
            BaseRow.digest >= revision,
            # After every digest that begins with it.
            BaseRow.digest < f"{revision}g",
        )
        row = session.scalar(query.order_by(BaseRow.number).limit(1))
        if row is not None:
            return row
    elif (tag := revision.removeprefix("refs/tags/")) != LATEST:
        return find_base(session, model, tag)
    raise BaseNotFound(
        f"{model.name} has no revision {revision[:60]!r}; main is v{model.current}.",
        hint="Use main, a version such as v0, or a commit id that it has.",
    )


def list_refs(ctx: Context, name: str, principal: Principal | None) -> list[tuple[str, str, bool]]:
    """
    Return version and commit of each base, newest first, and whether it is the head.

    Raises:
        ModelNotFound: there is no such model, or `principal` may not know of it.
    """
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        query = select(BaseRow.number, BaseRow.digest).where(BaseRow.model_id == model.id)
        rows = session.execute(query.order_by(BaseRow.number.desc()))
        return [(f"v{n}", commit_of(digest), n == model.current) for n, digest in rows]


def list_commits(
    ctx: Context, name: str, revision: str, principal: Principal | None, window: paging.Window
) -> Page[Commit]:
    """
    Return a base and those that it comes from, newest first.

    Raises:
        ModelNotFound, BaseNotFound: there is none.
        InvalidRequest: the cursor is none of ours.
    """
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        first = find_revision(session, model, revision).number
        line = _line(head_moves.parents(session, model), first)
        query = select(BaseRow).where(BaseRow.model_id == model.id, BaseRow.number.in_(line))
        return paging.page(session, query, BaseRow.number, window, _commit)


def _pushed(ctx: Context, name: str, revision: str, principal: Principal | None) -> int | None:
    """Return the number of the pull request that `revision` names; null: it names a base."""
    if not _COMMIT.fullmatch(revision):
        return pulled.pull_number(revision)
    return pulled.find_commit(ctx, name, revision, principal)


def commit_of(digest: str) -> str:
    """Return the commit id of the base whose manifest has that digest."""
    return digest[:COMMIT_LETTERS]


def _commit(row: BaseRow) -> Commit:
    origin = bases.Origin.model_validate_json(row.manifest)
    return Commit(
        version=f"v{row.number}",
        commit=commit_of(row.digest),
        created_at=row.created_at,
        title=_title(row, origin),
        authors=tuple(sorted({item.contributor for item in origin.contributions})),
    )


def _title(row: BaseRow, origin: bases.Origin) -> str:
    if row.parent_number is None:
        return f"v{row.number}: the pretrained model"
    count = len(origin.contributions)
    fused = f"{count} contribution{'' if count == 1 else 's'}"
    if row.replays_number is not None:
        return f"v{row.number}: v{row.replays_number} fused again from {fused}"
    return f"v{row.number}: {fused} fused onto v{row.parent_number}"


def _line(parents: Mapping[int, int | None], head: int) -> set[int]:
    """Return the numbers of a base and of all that it comes from."""
    found: set[int] = set()
    number: int | None = head
    while number is not None:
        found.add(number)
        number = parents[number]
    return found


def _taken_back(session: Session, model: ModelRow, row: BaseRow) -> str | None:
    """Return what to tell of a base that is not the head's, nor any that it comes from."""
    if row.number == model.current:
        return None
    if row.number in _line(head_moves.parents(session, model), model.current):
        return None
    return (
        f"v{row.number} of {model.name} was taken back by its maintainers; the head is "
        f"v{model.current}."
    )
