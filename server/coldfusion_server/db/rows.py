"""
Rows outside of a database: read in one order, written as JSON that means the same everywhere.

The tables are read from the database itself and not from `tables.py`, so that a database of an
older revision can be saved before it is upgraded, and brought back by a newer version.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Dialect,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    cast,
    func,
    insert,
    select,
)
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from coldfusion_server.db.tables import UtcDateTime
from coldfusion_shared.errors import ConfigurationError

# One row, in the order of the table's columns, of values that JSON has.
Row = list[Any]
# Table -> column -> kind.
Shape = dict[str, dict[str, str]]

# Few enough that rows of a megabyte, manifests of huge models, fit into memory.
BATCH_ROWS = 200
REVISIONS = "alembic_version"


class JsonText(TypeDecorator[str]):
    """A JSON column as the very text that the database keeps, NULL and ``null`` told apart."""

    impl = JSON
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> None:
        """Hand the text on as it is."""

    def result_processor(self, dialect: Dialect, coltype: object) -> None:
        """Hand the text on as it is."""

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Ask for the text."""
        return cast(column, Text)


# What a column's type is called in a file, and how it is read and written. The first that fits.
_KINDS: list[tuple[type[TypeEngine[Any]], str, TypeEngine[Any]]] = [
    (Boolean, "boolean", Boolean()),
    (Integer, "integer", BigInteger()),
    (Float, "float", Float(53)),
    (DateTime, "time", UtcDateTime()),
    (JSON, "json", JsonText()),
    (String, "text", Text()),
]
_PYTHON: dict[str, type] = {"integer": int, "boolean": bool}


def tables_of(session: Session) -> list[Table]:
    """Return the tables that are there, each behind those that it refers to."""
    found, ours = MetaData(), MetaData()
    found.reflect(session.connection())
    return [_table(table, ours) for table in found.sorted_tables if table.name != REVISIONS]


def shape_of(tables: Sequence[Table]) -> Shape:
    """Return what the tables look like."""
    return {t.name: {c.name: str(c.info["kind"]) for c in t.columns} for t in tables}


def count_rows(session: Session, tables: Sequence[Table]) -> dict[str, int]:
    """Return how many rows each table has."""
    return {t.name: session.scalar(select(func.count()).select_from(t)) or 0 for t in tables}


def read_rows(session: Session, table: Table) -> Iterator[list[Row]]:
    """Yield the table's rows in batches, in the order of the primary key."""
    query = select(table).order_by(*(_sorted(session, key) for key in table.primary_key))
    kinds = [column.info["kind"] for column in table.columns]
    # Closed also where the reading breaks off: PostgreSQL keeps a cursor for it.
    with session.execute(query.execution_options(yield_per=BATCH_ROWS)) as result:
        for batch in result.partitions():
            yield [[encode(k, v) for k, v in zip(kinds, row, strict=True)] for row in batch]


def write_rows(session: Session, table: Table, rows: Sequence[Row]) -> None:
    """
    Insert `rows`.

    Raises:
        ValueError: a value is not of its column's kind.
    """
    columns = [(column.name, column.info["kind"]) for column in table.columns]
    values = [
        {name: decode(kind, value) for (name, kind), value in zip(columns, row, strict=True)}
        for row in rows
    ]
    session.execute(insert(table), values)


def move_sequences(session: Session, tables: Sequence[Table]) -> None:
    """Let PostgreSQL number new rows behind those that are there; SQLite does by itself."""
    if session.get_bind().dialect.name != "postgresql":
        return
    for table in tables:
        for column in table.primary_key:
            name = func.pg_get_serial_sequence(table.name, column.name)
            if column.info["kind"] == "integer" and session.scalar(select(name)) is not None:
                largest = session.scalar(select(func.max(column)))
                # Without rows it begins at 1, which is not given out yet.
                moved = func.setval(name, largest or 1, largest is not None)
                session.execute(select(moved))


def encode(kind: str, value: Any) -> Any:
    """Return a column's value as JSON has it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if kind == "float" and value is not None and not math.isfinite(value):
        return str(value)
    return value


def decode(kind: str, value: Any) -> Any:
    """Return what `encode` was given; raises `ValueError` for what it would not give."""
    if value is None:
        return None
    if kind == "float" and isinstance(value, str | float | int):
        return float(value)
    if type(value) is not _PYTHON.get(kind, str):
        raise ValueError(f"{value!r} where {kind} belongs")
    return datetime.fromisoformat(str(value)).astimezone(UTC) if kind == "time" else value


def line(value: Any) -> bytes:
    """Return `value` as one line of JSON, always the same for the same value."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n"


@dataclass
class Digests:
    """Counts and SHA-256 of the rows of each table: equal for equal contents, on any database."""

    rows: dict[str, int] = field(default_factory=dict)
    hashes: dict[str, Any] = field(default_factory=dict)

    def add(self, table: str, rows: Sequence[Row]) -> None:
        """Count the next rows of a table."""
        self.rows[table] = self.rows.get(table, 0) + len(rows)
        digest = self.hashes.setdefault(table, hashlib.sha256())
        for row in rows:
            digest.update(line(row))

    def told(self) -> dict[str, list[Any]]:
        """Return count and digest of each table that has rows."""
        return {name: [self.rows[name], self.hashes[name].hexdigest()] for name in self.rows}


def digests_of(session: Session, tables: Sequence[Table]) -> dict[str, list[Any]]:
    """Return count and digest of all that the tables hold."""
    digests = Digests()
    for table in tables:
        for rows in read_rows(session, table):
            digests.add(table.name, rows)
    return digests.told()


def _table(found: Table, metadata: MetaData) -> Table:
    return Table(found.name, metadata, *(_column(column) for column in found.columns))


def _column(found: Column[Any]) -> Column[Any]:
    for kind, name, type_ in _KINDS:
        if isinstance(found.type, kind):
            info = {"kind": name}
            return Column(found.name, type_, primary_key=found.primary_key, info=info)
    raise ConfigurationError(
        f"The table {found.table.name} in this database is none of coldfusion's.",
        hint="Give the Repository a database of its own.",
    )


def _sorted(session: Session, column: Column[Any]) -> ColumnElement[Any]:
    """Order texts by their bytes: SQLite does, and PostgreSQL wherever it is asked to."""
    if column.info["kind"] == "text" and session.get_bind().dialect.name == "postgresql":
        return column.collate("C")
    return column
