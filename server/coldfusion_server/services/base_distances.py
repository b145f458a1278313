"""
How far the weights of each base are from v0's, measured once for each.

It is measured after a base was published, when a worker has nothing else to do. A try that fails,
or whose worker ends, is made again later; until then the distance is not known.
"""

from __future__ import annotations

from datetime import timedelta

import structlog
from sqlalchemy import or_, select

from coldfusion_server.db.tables import BaseRow, ModelRow
from coldfusion_server.events import outbox
from coldfusion_server.services import leases
from coldfusion_server.services.context import Context
from coldfusion_server.services.distances import relative_distance
from coldfusion_server.services.lookup import manifest_of
from coldfusion_shared.errors import LeaseLost
from coldfusion_shared.schemas.bases import Manifest

log = structlog.get_logger(__name__)

# From the beginning of a try that came to nothing to the next one.
TRY_AGAIN = timedelta(minutes=10)


def measure_next(ctx: Context, holder: str) -> bool:
    """Measure one base whose distance is not known; return whether there was one to try."""
    for base in _waiting(ctx):
        with leases.held(ctx, f"distance:{base}", holder) as lease:
            if lease is not None:
                _try(ctx, base, lease)
                return True
    return False


def _waiting(ctx: Context) -> list[int]:
    """Return the bases to measure, newest first: they are looked at most."""
    before = ctx.now() - TRY_AGAIN
    query = select(BaseRow.id).where(
        BaseRow.distance.is_(None),
        or_(BaseRow.distance_tried_at.is_(None), BaseRow.distance_tried_at <= before),
    )
    with ctx.database.read() as session:
        return list(session.scalars(query.order_by(BaseRow.id.desc())))


def _try(ctx: Context, base: int, lease: leases.Lease) -> None:
    """Measure one base; nobody waits for it, so that whatever fails is only told to the log."""
    try:
        new, first = _begin(ctx, base, lease)
        renewal = leases.Renewal(ctx, lease)
        distance = relative_distance(ctx, new.files, first.files, renewal.alive)
        if distance is None:
            log.warning("no distance", base=base, why="all values of v0 are 0")
            return
        _record(ctx, base, lease, distance)
    except LeaseLost:
        return
    except Exception as error:
        log.warning("no distance", base=base, why=str(error))


def _begin(ctx: Context, base: int, lease: leases.Lease) -> tuple[Manifest, Manifest]:
    """Note the try, before anything of it can go wrong; return the base's and v0's manifests."""
    with ctx.database.write() as session:
        leases.check(session, lease)
        row = session.get_one(BaseRow, base)
        row.distance_tried_at = ctx.now()
        query = select(BaseRow).where(BaseRow.model_id == row.model_id, BaseRow.number == 0)
        return manifest_of(row), manifest_of(session.scalars(query).one())


def _record(ctx: Context, base: int, lease: leases.Lease, distance: float) -> None:
    with ctx.database.write() as session:
        leases.check(session, lease)
        row = session.get_one(BaseRow, base)
        row.distance = distance
        model = session.get_one(ModelRow, row.model_id)
        data = {"version": f"v{row.number}", "distance": distance}
        outbox.append(session, ctx.now(), "base.measured", model.name, data)
