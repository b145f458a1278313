"""What an operator asks when something is wrong: database, storage, disk, clock, key."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select

from coldfusion_server.db.migrate import check_revision, newest_revision
from coldfusion_server.db.tables import EventRow
from coldfusion_server.services.context import Context
from coldfusion_server.services.probes import Diagnosis
from coldfusion_server.services.signing import check_key
from coldfusion_shared.errors import ColdFusionError, ConfigurationError, StorageFull

CLOCK_TOLERANCE = timedelta(seconds=30)


def check_ready(ctx: Context) -> None:
    """Raise `DatabaseUnavailable` or `StorageUnavailable` unless requests can be answered."""
    ctx.database.check_file()
    with ctx.database.read() as session:
        session.execute(select(EventRow.id).limit(1))
    ctx.store.free_bytes()


def examine(ctx: Context) -> list[Diagnosis]:
    """Look at everything; one thing that is wrong does not hide another."""
    looks: dict[str, Callable[[Context], str]] = {
        "database": _database,
        "storage": _storage,
        "disk": _disk,
        "clock": _clock,
        "key": _key,
    }
    return [_look(subject, look, ctx) for subject, look in looks.items()]


def look(ctx: Context) -> list[Diagnosis]:
    """Look at what can be seen quickly and without writing, for those who look often."""
    looks = {"database": _tables, "disk": _disk, "clock": _clock}
    return [_look(subject, one, ctx) for subject, one in looks.items()]


def _look(subject: str, look: Callable[[Context], str], ctx: Context) -> Diagnosis:
    try:
        return Diagnosis(subject, True, look(ctx))
    except ColdFusionError as error:
        return Diagnosis(subject, False, error.message, error.hint)


def _tables(ctx: Context) -> str:
    check_revision(ctx.database)
    return f"revision {newest_revision()}, as this version needs"


def _database(ctx: Context) -> str:
    check_revision(ctx.database)
    with ctx.database.write() as session:
        session.execute(select(func.count()).select_from(EventRow))
    return f"{ctx.database.engine.dialect.name}, reads and writes, revision {newest_revision()}"


def _storage(ctx: Context) -> str:
    ctx.store.check()
    return "an object was written, read and removed"


def _disk(ctx: Context) -> str:
    free = ctx.store.free_bytes()
    if free is None:
        return "the store does not tell its room"
    if free < ctx.settings.min_free_bytes:
        raise StorageFull(
            f"{free / 1e9:.1f} GB free, less than the reserve; no upload is taken.",
            hint="Free some space, or lower the setting min_free_bytes.",
        )
    return f"{free / 1e9:.1f} GB free"


def _clock(ctx: Context) -> str:
    """Expiry and deadlines need a clock that agrees with the database's and with the past."""
    now = ctx.now()
    with ctx.database.read() as session:
        newest = session.scalar(select(func.max(EventRow.at)))
        theirs = session.scalar(select(func.now()))
    if newest is not None and newest - now > CLOCK_TOLERANCE:
        raise ConfigurationError(
            f"The clock says {now:%Y-%m-%d %H:%M:%S} UTC, but the newest event is of "
            f"{newest:%Y-%m-%d %H:%M:%S}.",
            hint="Set the clock; leave it to NTP.",
        )
    if isinstance(theirs, datetime):
        theirs = theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)
        if abs(theirs - now) > CLOCK_TOLERANCE:
            raise ConfigurationError(
                f"This clock and the database's are {abs(theirs - now)} apart.",
                hint="Set both clocks; leave them to NTP.",
            )
    return f"{now:%Y-%m-%d %H:%M:%S} UTC"


def _key(ctx: Context) -> str:
    check_key(ctx)
    return f"bases are signed with {ctx.signing_key.public.id}"
