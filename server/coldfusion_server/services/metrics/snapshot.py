"""Who may read the metrics, and what the database says at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import select, true

from coldfusion_server.db.tables import ModelRow
from coldfusion_server.services.context import Context
from coldfusion_server.services.metrics.of_models import Models, of_models
from coldfusion_server.services.metrics.of_work import of_work
from coldfusion_server.services.tokens import Principal, may, require
from coldfusion_shared.errors import DatabaseUnavailable
from coldfusion_shared.schemas.tokens import Role


@dataclass(frozen=True)
class Snapshot:
    """
    What the database said.

    Attributes:
        families: the metrics.
        newest: id of the newest event; null where the database is away.
    """

    families: list[Metric]
    newest: int | None


def sees_all(ctx: Context, principal: Principal | None) -> bool:
    """
    Return whether `principal` sees everything, or what the setting `metrics_public` shows all.

    That is what concerns public models, and nothing of the work that private ones make.

    Raises:
        Unauthenticated, Forbidden: the caller sees nothing.
    """
    if ctx.settings.metrics_public:
        return principal is not None and may(principal, Role.MAINTAINER)
    require(principal, Role.MAINTAINER)
    return True


def take(ctx: Context, *, everything: bool) -> Snapshot:
    """
    Return what the database says, by as many statements for a thousand models as for one.

    Args:
        ctx: the service's surroundings.
        everything: also private models, and the work of all; false: public models alone.
    """
    try:
        return _taken(ctx, everything)
    except DatabaseUnavailable:
        # What the process itself knows is worth the more then.
        return Snapshot([_up(False)], None)


def _taken(ctx: Context, everything: bool) -> Snapshot:
    now = ctx.now()
    with ctx.database.read() as session:
        shown = true() if everything else ModelRow.public.is_(True)
        query = select(ModelRow.id, ModelRow.name, ModelRow.current).where(shown)
        rows = session.execute(query.order_by(ModelRow.name))
        models = Models([(identity, name, head) for identity, name, head in rows])
        found = [_up(True), *of_models(session, models)]
        if not everything:
            return Snapshot(found, None)
        work = of_work(ctx, session, now)
        return Snapshot([*found, *work.families], work.newest)


def _up(is_up: bool) -> Metric:
    told = "1 if the database answered this scrape; else what is read from it is missing."
    return GaugeMetricFamily("coldfusion_database_up", told, float(is_up))
