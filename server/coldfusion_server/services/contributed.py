"""
What one contributor has contributed, as far as the caller may know.

Only contributions to models that the caller may read are told of, or counted. Who has none of them
does not exist for the caller, unless it is himself or somebody whom he manages.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session, selectinload

from coldfusion_server.db.tables import ContributionRow, ContributorRow, ModelRow
from coldfusion_server.services import contributions, paging, tallying, uploads, usage
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import readable, searchable
from coldfusion_server.services.tokens import Principal, may
from coldfusion_shared.errors import NotFound
from coldfusion_shared.schemas.common import Page
from coldfusion_shared.schemas.contributions import Contribution, Effect
from coldfusion_shared.schemas.contributors import ContributedTo, Contributor, Usefulness
from coldfusion_shared.schemas.tokens import Role

# Contributions that are told of as useful or not.
NEWEST = 100


def get_contributor(ctx: Context, name: str, principal: Principal | None) -> Contributor:
    """Return what the contributor called `name` has done; raises `NotFound`."""
    with ctx.database.read() as session:
        row = _find(session, name, principal)
        seen = _seen(row, principal)
        states = tallying.by_state(session, seen)
        return Contributor(
            name=row.name,
            contributions=sum(states.values()),
            states=states,
            models=_models(session, seen),
            useful=_useful(session, seen),
            usage=usage.beside_quotas(ctx, session, row.id, row.name)
            if _manages(row, principal)
            else None,
        )


def list_contributed(
    ctx: Context, name: str, principal: Principal | None, window: paging.Window
) -> Page[Contribution]:
    """Return the contributions of the contributor called `name`, newest first, of all models."""
    with ctx.database.read() as session:
        seen = _seen(_find(session, name, principal), principal)
        query = contributions.receipts().join(ContributionRow.model).where(seen)
        convert = contributions.to_schema
        found = paging.page(session, query, ContributionRow.number, window, convert)
    return found.model_copy(update={"items": uploads.with_progress(ctx, found.items)})


def _find(session: Session, name: str, principal: Principal | None) -> ContributorRow:
    row = session.scalar(select(ContributorRow).where(ContributorRow.name == searchable(name)))
    if row is None or not (_manages(row, principal) or _is_seen(session, row, principal)):
        raise NotFound(
            f"There is no contributor {name[:100]!r} here, or nothing of theirs that you may see.",
            hint="A model's page names who contributed to it.",
        )
    return row


def _manages(row: ContributorRow, principal: Principal | None) -> bool:
    """Return whether the caller is the contributor, or manages all who contribute."""
    if principal is None:
        return False
    return row.id == principal.contributor_id or may(principal, Role.MAINTAINER)


def _is_seen(session: Session, row: ContributorRow, principal: Principal | None) -> bool:
    query = select(ContributionRow.id).join(ContributionRow.model).where(_seen(row, principal))
    return session.scalar(query.limit(1)) is not None


def _seen(row: ContributorRow, principal: Principal | None) -> ColumnElement[bool]:
    """Return the condition of the contributor's contributions that the caller may see."""
    return and_(ContributionRow.contributor_id == row.id, readable(principal))


def _models(session: Session, seen: ColumnElement[bool]) -> list[ContributedTo]:
    counts = (
        select(ModelRow.name, func.count())
        .join(ContributionRow, ContributionRow.model_id == ModelRow.id)
        .where(seen)
        .group_by(ModelRow.name)
        .order_by(ModelRow.name)
    )
    results = (
        select(ModelRow.name, ContributionRow.result_number)
        .join(ContributionRow, ContributionRow.model_id == ModelRow.id)
        .where(seen, ContributionRow.result_number.is_not(None))
        .distinct()
        .order_by(ContributionRow.result_number.desc())
    )
    bases: dict[str, list[str]] = {}
    for name, number in session.execute(results):
        bases.setdefault(name, []).append(f"v{number}")
    return [
        ContributedTo(model=name, contributions=count, bases=bases.get(name, []))
        for name, count in session.execute(counts)
    ]


def _useful(session: Session, seen: ColumnElement[bool]) -> list[Usefulness]:
    known = or_(ContributionRow.cosine.is_not(None), ContributionRow.effect.is_not(None))
    query = (
        select(ContributionRow)
        .options(selectinload(ContributionRow.model), selectinload(ContributionRow.round))
        .join(ContributionRow.model)
        .where(seen, known)
        .order_by(ContributionRow.number.desc())
        .limit(NEWEST)
    )
    return [
        Usefulness(
            contribution=row.id,
            model=row.model.name,
            round=row.round.number,
            declared_at=row.declared_at,
            cosine=row.cosine,
            norm_ratio=row.norm_ratio,
            own_effect=None if row.effect is None else Effect.model_validate(row.effect),
        )
        for row in session.scalars(query)
    ]
