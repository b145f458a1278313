"""Connections and transactions, the same for SQLite and PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from coldfusion_server import tracing
from coldfusion_shared.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    InvalidRequest,
    StorageFull,
)

SQLITE_BUSY_SECONDS = 30
# A request that gets no connection in this time is told so, and that it may come back.
POOL_SECONDS = 10.0
# Firewalls forget connections on which nothing was said for an hour or so.
RECYCLE_SECONDS = 1800
# As long as SQLite's writers wait for each other.
LOCK_SECONDS = 30
# A machine that vanished in the middle of a transaction keeps its locks no longer than this.
IDLE_SECONDS = 120
# Another process may be migrating a large database.
ALONE_SECONDS = 600
# How other processes of ours know our connections; also what the operator sees.
APPLICATION = "coldfusion"
# The key of PostgreSQL's advisory lock: any number that nobody else takes.
ALONE = 0xC01DF0511

_SERVER_OPTIONS: dict[str, Any] = {
    "application_name": APPLICATION,
    "connect_timeout": 10,
    # A server that went away without a word is noticed in a minute, not in hours.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
# PostgreSQL's codes of what passes by itself.
_BUSY = {
    "55P03": "another process holds what is needed",
    "40P01": "two processes were in each other's way",
    "53300": "it has no connection free",
}


class Database:
    """
    An engine and its kinds of transaction.

    SQLite lets one writer in at a time and fails a reader that turns writer while another writes,
    so a transaction says at its start whether it will write and takes the lock then. A reader sees
    the database as it was when it began to read.

    PostgreSQL is asked for the same, by two isolation levels that are set here and nowhere else,
    whatever the server's default is:

    * Reading: REPEATABLE READ, READ ONLY. What is shown is put together from several queries (a
      model and its open round, a round and its counts, a whole backup), and they have to see one
      moment. Such a transaction never fails for what others write.
    * Writing: READ COMMITTED. The services lock the row that decides (``FOR UPDATE``) and read
      behind the lock what the holder before them has written, or they change a row only if it still
      is as they know it, or leave the decision to a unique index. All three need each statement to
      see what was committed by then. REPEATABLE READ and SERIALIZABLE would fail whoever has
      waited, and every service would have to be tried again.

    Nothing waits in a circle, because all take locks in one order: the advisory lock of references
    (see `services.references`), lease, round, the round's contributions, the contributor, then the
    advisory lock of the events. Publishing holds that one while it goes on to its model and
    contributions; whoever else changes those has their round first, or waits for no event behind
    them.
    """

    def __init__(self, url: str, *, pool: int = 10, overflow: int = 20) -> None:
        """
        Connect lazily.

        Args:
            url: SQLAlchemy's, of SQLite or PostgreSQL.
            pool: connections to PostgreSQL that are kept open; SQLite's cost nothing to open.
            overflow: further ones under load.

        Raises:
            ConfigurationError: the URL cannot be used.
        """
        self.url = url
        try:
            parsed = make_url(url)
            self.is_sqlite = parsed.get_backend_name() == "sqlite"
            self.engine = create_engine(parsed, **_options(parsed, pool, overflow))
        except (ArgumentError, ModuleNotFoundError, ValueError) as error:
            raise ConfigurationError(
                f"The setting database_url cannot be used: {error}.",
                hint="Write it like sqlite:////folder/file.db or postgresql+psycopg://user@host/"
                "name, and install the driver that it names.",
            ) from None
        self._reading, self._writing = self.engine, self.engine.execution_options(writing=True)
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            event.listen(self.engine, "connect", _prepare_postgresql)
            self._reading = _snapshots(self.engine)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a transaction that only reads, all of it as of one moment."""
        with (
            tracing.child("database read"),
            named_errors(),
            Session(self._reading, autoflush=False) as session,
        ):
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a transaction that may write; it commits at the end unless an error leaves it."""
        with (
            tracing.child("database write"),
            named_errors(),
            Session(self._writing, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def alone(self) -> Iterator[Session]:
        """Open a writing transaction for what is done once: one process at a time is in one."""
        with self.write() as session:
            if not self.is_sqlite:  # Whose writer is alone anyway.
                session.execute(text(f"SET LOCAL lock_timeout = '{ALONE_SECONDS}s'"))
                session.execute(select(func.pg_advisory_xact_lock(ALONE)))
                session.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
            yield session

    def check_file(self) -> None:
        """Raise `DatabaseUnavailable` if SQLite's file is gone; open connections do not notice."""
        file = self.engine.url.database
        if self.is_sqlite and file and not Path(file).is_file():
            raise DatabaseUnavailable(
                f"The database file {file} is gone.", hint="Run: coldfusion-server doctor"
            )

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


@contextmanager
def named_errors() -> Iterator[None]:
    """Turn the database's own failures into ours; a broken constraint stays what it is."""
    try:
        yield
    except IntegrityError:
        raise
    except DataError as error:
        # PostgreSQL keeps no NUL in a text, and no number beyond its column's.
        raise InvalidRequest(
            "The request holds a character or a number that the database cannot keep."
        ) from error
    except DBAPIError as error:
        raise _named(error) from error
    except PoolTimeout as error:
        raise DatabaseUnavailable(
            f"All connections to the database are in use, and none became free in "
            f"{POOL_SECONDS:g} seconds.",
            hint="It passes; if it comes back, raise the setting database_pool.",
        ) from error
    except SQLAlchemyError as error:
        raise DatabaseUnavailable(f"The database does not work: {error}.") from error


def _named(error: DBAPIError) -> StorageFull | DatabaseUnavailable:
    # Drivers add lines with where and how; the first one says what.
    what = (str(error.orig).strip().splitlines() or [""])[0].rstrip(".")
    if "disk is full" in str(error.orig) or "No space left" in str(error.orig):
        return StorageFull("The database's disk is full.")
    busy = _BUSY.get(getattr(error.orig, "sqlstate", None) or "")
    if "database is locked" in what:  # SQLite's way to say so
        busy = _BUSY["55P03"]
    if busy is not None:
        return DatabaseUnavailable(f"The database is busy: {busy}.", hint="Try again.")
    return DatabaseUnavailable(
        f"The database does not work: {what}.", hint="Run: coldfusion-server doctor"
    )


def _options(url: URL, pool: int, overflow: int) -> dict[str, Any]:
    """Return what `create_engine` is told; what the URL itself says wins."""
    if url.get_backend_name() == "sqlite":
        connect = {"timeout": SQLITE_BUSY_SECONDS, "check_same_thread": False}
        return {"pool_pre_ping": True, "hide_parameters": True, "connect_args": connect}
    if url.get_backend_name() != "postgresql":
        raise ArgumentError("only SQLite and PostgreSQL are known here")
    return {
        # A connection that the server has closed meanwhile is found out before it is used.
        "pool_pre_ping": True,
        # Errors reach the log: what people sent, and digests of tokens, need not be in them.
        "hide_parameters": True,
        "pool_size": pool,
        "max_overflow": overflow,
        "pool_timeout": POOL_SECONDS,
        "pool_recycle": RECYCLE_SECONDS,
        # The last one used is taken first, so that the others may grow old and be closed.
        "pool_use_lifo": True,
        "isolation_level": "READ COMMITTED",
        "connect_args": {k: v for k, v in _SERVER_OPTIONS.items() if k not in url.query},
    }


def _snapshots(engine: Engine) -> Engine:
    """Return the engine of transactions that read one moment and write nothing."""
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def _prepare_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    # The driver's own transactions begin too late; ours are begun by _begin_sqlite.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: Connection) -> None:
    writing = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _prepare_postgresql(connection: Any, _: Any) -> None:
    # Said in a session and not as start-up options, which some poolers in between do not take.
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")
    connection.commit()
