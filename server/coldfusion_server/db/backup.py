"""
A database into a file, and back into an empty one.

One way of our own for both databases, rather than pg_dump here and SQLite's backup there: a file
can then be brought back into either one, by the machine that runs the Repository and needs no
programs of the database's for it; it is checked to the last row, and copying a Repository from
SQLite to PostgreSQL is the same work without the file in between. pg_dump and archived logs are
faster and finer for a large PostgreSQL, and nothing here keeps an operator from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Table, delete
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session

from coldfusion_server.db import migrate, rows
from coldfusion_server.db.backup_file import Header, Writer, new_file, opened
from coldfusion_server.db.database import Database
from coldfusion_server.db.tables import RepositoryRow
from coldfusion_shared import __version__
from coldfusion_shared.errors import BadBackup, ConfigurationError, Conflict

# Rows done, and rows in all.
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Moved:
    """
    What was saved, brought back or copied.

    Attributes:
        revision: the tables' when they were saved.
        rows: how many each table has.
    """

    revision: str
    rows: dict[str, int]

    @property
    def total(self) -> int:
        """How many rows there are in all."""
        return sum(self.rows.values())


def backup(database: Database, path: Path, report: Report) -> Moved:
    """
    Write all tables, as of one moment, to the file `path`; a file of that name is replaced.

    Raises:
        ConfigurationError: the database has no tables.
        StorageFull, InvalidRequest, Conflict: the file cannot be written.
    """
    with database.read() as session:
        found = described(session)
        tables = rows.tables_of(session)
        header = Header(
            revision=found.revision,
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            software=f"coldfusion {__version__}",
            tables=rows.shape_of(tables),
            rows=found.rows,
        )
        with new_file(path) as file:
            writer = Writer(file, header)
            done = 0
            for table in tables:
                for batch in rows.read_rows(session, table):
                    writer.add(table.name, batch)
                    done += len(batch)
                    report(done, found.total)
            writer.finish()
    return found


def restore(database: Database, path: Path, report: Report) -> Moved:
    """
    Fill an empty database from the file `path` and bring it to this version's tables.

    Everything or nothing: one transaction.

    Raises:
        BadBackup: the file is none, not whole, or altered.
        DataFolderTooNew: a newer version of coldfusion has written file or database.
        Conflict: the database is not empty.
    """
    with opened(path) as reader, database.alone() as session:
        header = reader.header
        found = Moved(header.revision, header.rows)
        tables = make_tables(session, header.revision)
        if rows.shape_of(tables) != header.tables:
            raise BadBackup(f"{path.name} has other tables than its revision {header.revision}.")
        fill(session, tables, reader.batches(), found, report)
        finish(session, tables, reader.digests.told())
    return found


def described(session: Session) -> Moved:
    """Return revision and counts; raises `ConfigurationError` where there are no tables."""
    revision = migrate.revision_of(session.connection())
    if revision is None:
        raise ConfigurationError(
            "The database has no tables; there is nothing to save.",
            hint="Check --data-dir and --database-url.",
        )
    migrate.check_known(revision)
    return Moved(revision, rows.count_rows(session, rows.tables_of(session)))


def make_tables(session: Session, revision: str) -> list[Table]:
    """
    Give an empty database the tables of `revision` and return them, without a row.

    Raises:
        DataFolderTooNew: this version does not know them.
        Conflict: there are rows.
    """
    migrate.check_known(revision)
    connection = session.connection()
    before = migrate.revision_of(connection)
    _check_empty(session)
    if before != revision:
        if before is not None:
            migrate.empty(connection)
        migrate.upgrade(connection, revision)
    tables = rows.tables_of(session)
    for table in reversed(tables):
        session.execute(delete(table))
    return tables


def fill(
    session: Session,
    tables: Iterable[Table],
    batches: Iterable[tuple[str, list[rows.Row]]],
    found: Moved,
    report: Report,
) -> None:
    """Insert all rows; raises `BadBackup` where the database cannot keep one."""
    known = {table.name: table for table in tables}
    done = 0
    for name, batch in batches:
        try:
            rows.write_rows(session, known[name], batch)
        except (ValueError, OverflowError, TypeError, KeyError, DataError, IntegrityError) as error:
            why = str(getattr(error, "orig", error)).strip().splitlines() or [""]
            raise BadBackup(
                f"This database cannot keep what the table {name[:100]} holds: {why[0]}.",
                hint="Nothing was changed.",
            ) from error
        done += len(batch)
        report(done, found.total)


def finish(session: Session, tables: list[Table], expected: dict[str, list[object]]) -> None:
    """Compare what is there now with `expected`, then bring it to this version's tables."""
    there = rows.digests_of(session, tables)
    wrong = sorted(name for name in {*there, *expected} if there.get(name) != expected.get(name))
    if wrong:
        raise BadBackup(
            f"What the database holds is not what was put into it: {', '.join(wrong)}.",
            hint="Nothing was changed. Report it, please.",
        )
    rows.move_sequences(session, tables)
    connection = session.connection()
    if migrate.revision_of(connection) != migrate.newest_revision():
        migrate.upgrade(connection, migrate.newest_revision())


def _check_empty(session: Session) -> None:
    # The Repository's own name is given to each database at first; that of the rows comes instead.
    counts = rows.count_rows(session, rows.tables_of(session))
    counts.pop(RepositoryRow.__tablename__, None)
    if any(counts.values()):
        held = ", ".join(f"{count} in {name}" for name, count in counts.items() if count)
        raise Conflict(
            f"The database is not empty; it has rows: {held}.",
            hint="Give an empty one: a new folder, or CREATE DATABASE. A server that was started "
            "on it has made its first token there.",
        )
