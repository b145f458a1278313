"""Models as the hub's clients list and search them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import BaseFileRow, BaseRow, ModelRow
from coldfusion_server.services import paging
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_model, readable, searchable
from coldfusion_server.services.revisions import commit_of
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.schemas.common import Page


@dataclass(frozen=True)
class ListedModel:
    """
    A model, and its head.

    Attributes:
        name: owner/name.
        public: whether everybody may read it.
        created_at: when it was made.
        commit: commit id of its head.
        published_at: when that was published.
        files: their paths.
    """

    name: str
    public: bool
    created_at: datetime
    commit: str
    published_at: datetime
    files: tuple[str, ...]


def get(ctx: Context, name: str, principal: Principal | None) -> ListedModel:
    """Return one model; raises `ModelNotFound`."""
    with ctx.database.read() as session:
        return _listed(session, [find_model(session, name, principal)])[0]


def search(
    ctx: Context,
    principal: Principal | None,
    window: paging.Window,
    *,
    text: str | None = None,
    author: str | None = None,
) -> Page[ListedModel]:
    """
    Return the models that `principal` may read, newest first.

    Args:
        ctx: the service's surroundings.
        principal: who asks.
        window: which part of the list.
        text: part of a name, in any case of letters; null: any.
        author: what stands before the slash; null: any.
    """
    query = select(ModelRow).where(readable(principal))
    if text:
        # No name has a blank: what cannot be looked for is not found.
        query = query.where(ModelRow.name.icontains(searchable(text) or " ", autoescape=True))
    if author is not None:
        query = query.where(ModelRow.name.startswith(f"{searchable(author)}/", autoescape=True))
    with ctx.database.read() as session:
        page = paging.page(session, query, ModelRow.id, window, lambda row: row)
        return Page.model_construct(
            items=_listed(session, page.items), next_cursor=page.next_cursor
        )


def _listed(session: Session, models: list[ModelRow]) -> list[ListedModel]:
    ids = [model.id for model in models]
    heads = session.execute(
        select(BaseRow.model_id, BaseRow.id, BaseRow.digest, BaseRow.created_at)
        .join(ModelRow, (ModelRow.id == BaseRow.model_id) & (ModelRow.current == BaseRow.number))
        .where(BaseRow.model_id.in_(ids))
    ).all()
    by_model = {head.model_id: head for head in heads}
    paths: defaultdict[int, list[str]] = defaultdict(list)
    files = select(BaseFileRow.base_id, BaseFileRow.path).order_by(BaseFileRow.path)
    for base_id, path in session.execute(
        files.where(BaseFileRow.base_id.in_([head.id for head in heads]))
    ):
        paths[base_id].append(path)
    return [
        ListedModel(
            name=model.name,
            public=model.public,
            created_at=model.created_at,
            commit=commit_of(by_model[model.id].digest),
            published_at=by_model[model.id].created_at,
            files=tuple(paths[by_model[model.id].id]),
        )
        for model in models
    ]
