"""Who uses how much of the store, by what the database knows: the store itself is not asked."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, case, func, select, true
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import (
    BaseRow,
    ContributionFileRow,
    ContributionRow,
    ContributorRow,
    HubUploadRow,
    HubXorbRow,
    ModelRow,
)
from coldfusion_server.services import references
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_model
from coldfusion_server.services.tokens import Principal, require, signed_in
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.schemas.tokens import Role
from coldfusion_shared.schemas.usage import ContributorUsage, ModelUsage, OwnUsage, Usage

DAY = timedelta(hours=24)
# Bytes of an upload that counts as one: an adapter's settings, which are smaller, come beside it.
COUNTED_BYTES = 2**13
_UNFINISHED = ContributionRow.state == ContributionState.DECLARED


def model_usage(ctx: Context, name: str, principal: Principal | None) -> ModelUsage:
    """Return what the bases and contributions of one model take."""
    with ctx.database.read() as session:
        return _of_model(session, find_model(session, name, principal))


def all_usage(ctx: Context, principal: Principal | None) -> Usage:
    """Return what everything takes; for maintainers."""
    require(principal, Role.MAINTAINER)
    with ctx.database.read() as session:
        models = session.scalars(select(ModelRow).order_by(ModelRow.name)).all()
        return Usage(
            total_bytes=_total_bytes(session),
            models=[_of_model(session, model) for model in models],
            contributors=_contributors(session, pieces=true()),
        )


def own_usage(ctx: Context, principal: Principal | None) -> OwnUsage:
    """Return what the caller has stored and on the way, and how much that may be."""
    who = signed_in(principal)
    with ctx.database.read() as session:
        return beside_quotas(ctx, session, who.contributor_id, who.name)


def beside_quotas(ctx: Context, session: Session, contributor_id: int, name: str) -> OwnUsage:
    """Return what one contributor has stored and on the way, and how much that may be."""
    mine = of_contributor(session, contributor_id, name)
    declared = declared_since(session, contributor_id, ctx.now() - DAY)
    return OwnUsage(
        **mine.model_dump(),
        day_contributions=len(declared),
        day_bytes=sum(size for _, size in declared),
        quota_bytes=ctx.settings.quota_bytes,
        quota_uploads=ctx.settings.quota_uploads,
        quota_round=ctx.settings.quota_round,
        quota_day=ctx.settings.quota_day,
        quota_day_bytes=ctx.settings.quota_day_bytes,
    )


def of_contributor(session: Session, contributor_id: int, name: str) -> ContributorUsage:
    """Return what one contributor has stored and on the way, over all models."""
    found = _contributors(
        session,
        ContributionRow.contributor_id == contributor_id,
        staged=HubUploadRow.contributor_id == contributor_id,
    )
    return found[0] if found else ContributorUsage(contributor=name)


def declared_since(
    session: Session, contributor_id: int, since: datetime
) -> list[tuple[datetime, int]]:
    """Return when one contributor declared each upload after `since`, and its bytes, in order."""
    # What the base has, too, is not sent.
    sent = case((ContributionFileRow.here, 0), else_=ContributionFileRow.size)
    query = (
        select(ContributionRow.declared_at, func.sum(sent))
        .join(ContributionFileRow, ContributionFileRow.contribution_id == ContributionRow.id)
        .where(
            ContributionRow.contributor_id == contributor_id,
            ContributionRow.declared_at > since,
        )
        .group_by(ContributionRow.number, ContributionRow.declared_at)
        .order_by(ContributionRow.number)
    )
    return [(at, _whole(size)) for at, size in session.execute(query)]


def _of_model(session: Session, model: ModelRow) -> ModelUsage:
    of_model = ContributionRow.model_id == model.id
    bases, damaged = references.base_objects(session, BaseRow.model_id == model.id)
    contributors = _contributors(
        session,
        of_model,
        staged=HubUploadRow.model_id == model.id,
        pieces=HubXorbRow.model_id == model.id,
    )
    count = select(func.count()).select_from(BaseRow).where(BaseRow.model_id == model.id)
    return ModelUsage(
        model=model.name,
        bases=session.scalar(count) or 0,
        base_bytes=sum(bases.values()),
        contributions=sum(item.contributions for item in contributors),
        kept_bytes=sum(_kept(session, of_model).values()),
        uploads=sum(item.uploads for item in contributors),
        unfinished_bytes=sum(item.unfinished_bytes for item in contributors),
        contributors=contributors,
        damaged=[one.sentence for one in damaged],
    )


def _total_bytes(session: Session) -> int:
    objects = references.base_objects(session)[0] | _kept(session)
    unfinished = references.stored_files(select(func.sum(ContributionFileRow.size))).where(
        _UNFINISHED
    )
    waiting = (func.sum(HubUploadRow.size), func.sum(HubXorbRow.size))
    staged = sum(_whole(session.scalar(select(size))) for size in waiting)
    return sum(objects.values()) + _whole(session.scalar(unfinished)) + staged


def _kept(session: Session, *where: ColumnElement[bool]) -> dict[str, int]:
    """Return the objects of kept contributions: sizes in bytes by digest."""
    query = references.stored_files(
        select(ContributionFileRow.sha256, ContributionFileRow.size)
    ).where(references.needed_files(session), ~_UNFINISHED, *where)
    return {digest: size for digest, size in session.execute(query.distinct())}


def _contributors(
    session: Session,
    *where: ColumnElement[bool],
    staged: ColumnElement[bool] | None = None,
    pieces: ColumnElement[bool] | None = None,
) -> list[ContributorUsage]:
    """
    Return each contributor's part, the largest first.

    Args:
        session: the transaction.
        *where: limits the contributions.
        staged: limits what is not declared.
        pieces: limits the xorbs, of which such files are made; null: they are not counted, as for
            quotas, by which nobody has to have room for both.
    """
    needed = references.needed_files(session)
    # A file that one contributor sent several times is one object.
    files = (
        references.stored_files(
            select(
                ContributionRow.contributor_id, ContributionFileRow.sha256, ContributionFileRow.size
            )
        )
        .where(needed, ~_UNFINISHED, *where)
        .distinct()
        .subquery()
    )
    kept = select(files.c.contributor_id, func.sum(files.c.size)).group_by(files.c.contributor_id)
    arriving = (
        references.stored_files(
            select(ContributionRow.contributor_id, func.sum(ContributionFileRow.size))
        )
        .where(_UNFINISHED, *where)
        .group_by(ContributionRow.contributor_id)
    )
    kept_bytes = {key: _whole(size) for key, size in session.execute(kept)}
    unfinished_bytes = {key: _whole(size) for key, size in session.execute(arriving)}
    contributions = _counts(session, needed, ~_UNFINISHED, *where)
    uploads = _counts(session, _UNFINISHED, *where)
    for key, count, size in [*_staged(session, staged), *_pieces(session, pieces)]:
        uploads[key] = uploads.get(key, 0) + count
        unfinished_bytes[key] = unfinished_bytes.get(key, 0) + size
    found = [
        ContributorUsage(
            contributor=name,
            contributions=contributions.get(key, 0),
            kept_bytes=kept_bytes.get(key, 0),
            uploads=uploads.get(key, 0),
            unfinished_bytes=unfinished_bytes.get(key, 0),
        )
        for key, name in _names(session, contributions.keys() | uploads.keys())
    ]
    return sorted(
        found, key=lambda item: (-item.kept_bytes - item.unfinished_bytes, item.contributor)
    )


def _staged(session: Session, where: ColumnElement[bool] | None) -> list[tuple[int, int, int]]:
    """Return contributor, number and bytes of what the hub door holds and nothing declares yet."""
    counted = func.sum(case((HubUploadRow.size > COUNTED_BYTES, 1), else_=0))
    query = select(HubUploadRow.contributor_id, counted, func.sum(HubUploadRow.size))
    if where is not None:
        query = query.where(where)
    rows = session.execute(query.group_by(HubUploadRow.contributor_id))
    return [(key, _whole(count), _whole(size)) for key, count, size in rows]


def _pieces(session: Session, where: ColumnElement[bool] | None) -> list[tuple[int, int, int]]:
    """Return contributor and bytes of xorbs, which are no uploads of their own."""
    if where is None:
        return []
    query = select(HubXorbRow.contributor_id, func.sum(HubXorbRow.size)).where(where)
    rows = session.execute(query.group_by(HubXorbRow.contributor_id))
    return [(key, 0, _whole(size)) for key, size in rows]


def _counts(session: Session, *where: ColumnElement[bool]) -> dict[int, int]:
    """Return the number of contributions for which `where` holds, by contributor."""
    number = func.count(ContributionRow.id.distinct())
    query = references.stored_files(select(ContributionRow.contributor_id, number)).where(*where)
    return {
        key: count for key, count in session.execute(query.group_by(ContributionRow.contributor_id))
    }


def _names(session: Session, ids: set[int]) -> list[tuple[int, str]]:
    query = select(ContributorRow.id, ContributorRow.name).where(ContributorRow.id.in_(ids))
    return [(key, name) for key, name in session.execute(query)]


def _whole(size: object) -> int:
    """Return a sum of sizes: null where there is none, and PostgreSQL's are decimals."""
    return int(str(size or 0))
