"""Connections and transactions, the same for SQLite and PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from coldfusion_shared.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    InvalidRequest,
    StorageFull,
)

SQLITE_BUSY_SECONDS = 30


class Database:
    """
    An engine and its two kinds of transaction.

    SQLite lets one writer in at a time and fails a reader that turns writer while another writes,
    so a transaction says at its start whether it will write and takes the lock then.
    """

    def __init__(self, url: str) -> None:
        """Connect lazily to `url`."""
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        options: dict[str, Any] = {"pool_pre_ping": True}
        if self.is_sqlite:
            options["connect_args"] = {"timeout": SQLITE_BUSY_SECONDS, "check_same_thread": False}
        try:
            self.engine = create_engine(url, **options)
        except (ArgumentError, ModuleNotFoundError) as error:
            raise ConfigurationError(
                f"The setting database_url cannot be used: {error}.",
                hint="Write it like sqlite:////folder/file.db or postgresql+psycopg://user@host/"
                "name, and install the driver that it names.",
            ) from None
        self._writing = self.engine.execution_options(writing=True)
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a transaction that only reads."""
        with named_errors(), Session(self.engine, autoflush=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a transaction that may write; it commits at the end unless an error leaves it."""
        with (
            named_errors(),
            Session(self._writing, expire_on_commit=False) as session,
            session.begin(),
        ):
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
        if "disk is full" in str(error.orig) or "No space left" in str(error.orig):
            raise StorageFull("The database's disk is full.") from error
        raise DatabaseUnavailable(
            f"The database does not work: {error.orig}.", hint="Run: coldfusion-server doctor"
        ) from error
    except SQLAlchemyError as error:
        raise DatabaseUnavailable(f"The database does not work: {error}.") from error


def _prepare_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    # The driver's own transactions begin too late; ours are begun by _begin_sqlite.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: Connection) -> None:
    writing = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
