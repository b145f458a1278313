"""A database into another one, of whatever kind, while nobody else uses it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from coldfusion_server.db import rows
from coldfusion_server.db.backup import Moved, Report, described, fill, finish, make_tables
from coldfusion_server.db.database import Database
from coldfusion_shared.errors import Conflict, InvalidRequest

# PostgreSQL lists a connection for a moment after its program has closed it, or has ended.
SECONDS_TO_LEAVE = 5.0


def copy(source: Database, target: Database, report: Report) -> Moved:
    """
    Fill the empty `target` with all of `source`, which stays as it is; everything or nothing.

    Raises:
        Conflict: a server still uses `source`, or `target` is not empty.
        BadBackup: `target` cannot keep what `source` holds.
        InvalidRequest: they are one.
    """
    if source.engine.url == target.engine.url:
        raise InvalidRequest("The database cannot be copied to itself.")
    source.check_file()
    with still(source) as origin, target.alone() as session:
        found = described(origin)
        tables = make_tables(session, found.revision)
        digests = rows.Digests()
        fill(session, tables, _batches(origin, digests), found, report)
        finish(session, tables, digests.told())
        # A server that was started meanwhile would go on with the old database.
        if _is_used(origin):
            raise _in_use()
    return found


@contextmanager
def still(database: Database) -> Iterator[Session]:
    """Open a transaction in which nobody else can write; raises `Conflict` if a server runs."""
    if database.is_sqlite:
        database.close()
        event.listen(database.engine, "connect", _take_file)
    with database.write() as session:
        try:
            session.connection()
        except OperationalError as error:
            if database.is_sqlite and "locked" in str(error.orig):
                raise _in_use() from None
            raise
        _wait_until_unused(session)
        if not database.is_sqlite:
            # It waits while the other database takes and reads all rows.
            session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            names = ", ".join(f'"{table.name}"' for table in rows.tables_of(session))
            if names:
                session.execute(text(f"LOCK TABLE {names} IN SHARE MODE"))
        yield session


def _batches(session: Session, digests: rows.Digests) -> Iterator[tuple[str, list[rows.Row]]]:
    for table in rows.tables_of(session):
        for batch in rows.read_rows(session, table):
            digests.add(table.name, batch)
            yield table.name, batch


def _take_file(connection: sqlite3.Connection, _: Any) -> None:
    # Fails where any other process has the file open, be it idle, and keeps it out from then on.
    connection.execute("PRAGMA busy_timeout=1000")
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")


def _wait_until_unused(session: Session) -> None:
    end = time.monotonic() + SECONDS_TO_LEAVE
    while _is_used(session):
        if time.monotonic() > end:
            raise _in_use()
        time.sleep(0.05)


def _is_used(session: Session) -> bool:
    """Return whether PostgreSQL knows of another connection of ours; SQLite lets in none."""
    if session.get_bind().dialect.name != "postgresql":
        return False
    # What it tells stays the same in a transaction unless it is asked anew.
    session.execute(select(func.pg_stat_clear_snapshot()))
    others = session.scalar(
        select(func.count())
        .select_from(text("pg_stat_activity"))
        .where(
            text(
                "datname = current_database() AND pid <> pg_backend_pid() "
                "AND application_name = current_setting('application_name')"
            )
        )
    )
    return bool(others)


def _in_use() -> Conflict:
    return Conflict(
        "The database is in use: a server, a worker or another command still runs on it.",
        hint="Stop all of them first, and start them on the new database afterwards.",
    )
