"""
How the Repository is doing, in numbers: what waits, who works, what failed, what is stored.

For those who look after all of it: maintainers and admins whose token is for all models. Nothing is
written, however often somebody looks.
"""

from __future__ import annotations

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from coldfusion_server.db.migrate import current_revision, newest_revision
from coldfusion_server.db.tables import LeaseRow
from coldfusion_server.events import outbox
from coldfusion_server.services import garbage, health, usage
from coldfusion_server.services.context import Context
from coldfusion_server.services.health_failures import failures
from coldfusion_server.services.health_leases import holdings, parts
from coldfusion_server.services.health_queues import queues
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared import __version__
from coldfusion_shared.schemas.health import (
    DatabaseState,
    Health,
    Look,
    ModelStorage,
    Storage,
    Stream,
    Work,
)
from coldfusion_shared.schemas.tokens import Role


def numbers(ctx: Context, principal: Principal | None, watchers: int, last: int) -> Health:
    """
    Return how the Repository is doing.

    Args:
        ctx: the service's surroundings.
        principal: who asks.
        watchers: of the event stream, in this process.
        last: id of the newest event that this process has handed out.

    Raises:
        Unauthenticated, Forbidden: the caller does not look after all models.
    """
    return Health(
        version=__version__,
        work=work(ctx, principal, watchers, last),
        storage=storage(ctx, principal),
        database=database(ctx, principal),
        looks=looks(ctx, principal),
    )


def work(ctx: Context, principal: Principal | None, watchers: int, last: int) -> Work:
    """Return what is done, what waits and what failed; the arguments are those of `numbers`."""
    require(principal, Role.MAINTAINER)
    now = ctx.now()
    with ctx.database.read() as session:
        newest = outbox.newest(session)
        held = holdings(session, now)
        return Work(
            at=now,
            queues=queues(session, now),
            leases=held,
            parts=parts(ctx, held, now),
            failures=failures(session, now),
            stream=Stream(watchers=watchers, newest=newest, behind=max(0, newest - last)),
        )


def storage(ctx: Context, principal: Principal | None) -> Storage:
    """Return what is stored, by model, and how much room there is."""
    found = usage.all_usage(ctx, principal)
    models = [
        ModelStorage(
            model=one.model,
            base_bytes=one.base_bytes,
            kept_bytes=one.kept_bytes,
            unfinished_bytes=one.unfinished_bytes,
        )
        for one in found.models
    ]
    with ctx.database.read() as session:
        lease = session.get(LeaseRow, garbage.LEASE)
        collected_at = None if lease is None else min(lease.expires_at, ctx.now())
    return Storage(
        kind="folder" if ctx.settings.s3_bucket is None else "bucket",
        total_bytes=found.total_bytes,
        free_bytes=ctx.store.free_bytes(),
        reserve_bytes=ctx.settings.min_free_bytes,
        models=sorted(models, key=lambda one: (-_bytes(one), one.model)),
        damaged=[sentence for one in found.models for sentence in one.damaged],
        collected_at=collected_at,
    )


def database(ctx: Context, principal: Principal | None) -> DatabaseState:
    """Return which database there is, and how large."""
    require(principal, Role.MAINTAINER)
    with ctx.database.read() as session:
        size = database_bytes(session)
    return DatabaseState(
        kind=ctx.database.engine.dialect.name,
        bytes=size,
        revision=current_revision(ctx.database),
        newest_revision=newest_revision(),
    )


def looks(ctx: Context, principal: Principal | None) -> list[Look]:
    """Return what the doctor sees without touching anything."""
    require(principal, Role.MAINTAINER)
    return [
        Look(subject=one.subject, ok=one.ok, message=one.message, hint=one.hint)
        for one in health.look(ctx)
    ]


def _bytes(model: ModelStorage) -> int:
    return model.base_bytes + model.kept_bytes + model.unfinished_bytes


def database_bytes(session: Session) -> int | None:
    """Return how large the database is."""
    if session.get_bind().dialect.name == "postgresql":
        return session.scalar(select(func.pg_database_size(func.current_database())))
    pages = session.scalar(text("PRAGMA page_count")) or 0
    return int(pages) * int(session.scalar(text("PRAGMA page_size")) or 0)
