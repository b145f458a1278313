"""Migrations: up, down and up again with rows in every table, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Float,
    Integer,
    Table,
    func,
    inspect,
    select,
    text,
)

from coldfusion_server.db import tables
from coldfusion_server.db.database import Database
from coldfusion_server.db.migrate import (
    check_revision,
    current_revision,
    migrate,
    migrations_folder,
    newest_revision,
)
from coldfusion_shared.errors import ConfigurationError, DataFolderTooNew
from tests.server.backends import Backend, both_databases

pytestmark = both_databases

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


@pytest.fixture
def database(backend: Backend, tmp_path: Path) -> Iterator[Database]:
    (tmp_path / "a folder").mkdir()
    with backend.database() as url:
        opened = Database(url or f"sqlite:///{tmp_path / 'a folder' / 'x.db'}")
        yield opened
        opened.close()


def config(database: Database) -> Config:
    made = Config(attributes={"url": database.url})
    made.set_main_option("script_location", str(migrations_folder()))
    return made


def all_tables() -> list[Table]:
    return list(tables.Table.metadata.sorted_tables)


def value_for(column: Any) -> Any:
    kind = column.type
    if column.foreign_keys:
        (key,) = column.foreign_keys
        return value_for(key.column)
    if isinstance(kind, JSON):
        return {"a": [1, "ä"]}
    if isinstance(kind, tables.UtcDateTime | DateTime):
        return NOW
    if isinstance(kind, BigInteger):
        return 2**45
    if isinstance(kind, Integer):
        return 1
    if isinstance(kind, Float):
        return 0.1
    if isinstance(kind, Boolean):
        return True
    if column.name == "state":
        return "open"
    return "ä" * min(kind.length or 5000, 5000)


def fill(database: Database) -> None:
    """Put a row into every table, texts as long as they may be."""
    with database.write() as session:
        for table in all_tables():
            session.execute(table.insert().values({c.name: value_for(c) for c in table.columns}))


def counts(database: Database) -> dict[str, int]:
    with database.read() as session:
        return {
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in all_tables()
        }


def test_there_is_one_newest_revision() -> None:
    assert ScriptDirectory(str(migrations_folder())).get_heads() == [newest_revision()]


def test_up_with_rows_down_and_up_again(database: Database) -> None:
    assert migrate(database) == (None, newest_revision())
    fill(database)
    assert set(counts(database).values()) == {1}
    assert migrate(database) == (newest_revision(), newest_revision())
    assert set(counts(database).values()) == {1}
    command.downgrade(config(database), "base")
    assert set(inspect(database.engine).get_table_names()) <= {"alembic_version"}
    assert current_revision(database) is None
    migrate(database)
    assert set(counts(database).values()) == {0}
    fill(database)


def test_contributors_from_before_are_not_blocked_and_stay_on_the_way_down(
    database: Database,
) -> None:
    command.upgrade(config(database), "0011")
    with database.engine.begin() as connection:
        values = {"at": NOW.isoformat(" "), "name": "ann"}
        connection.execute(
            text("INSERT INTO contributors (id, name, created_at) VALUES (1, :name, :at)"), values
        )
        connection.execute(
            text(
                "INSERT INTO tokens (id, contributor_id, role, sha256, created_at) "
                "VALUES ('a', 1, 'reader', 'b', :at)"
            ),
            values,
        )
    migrate(database)
    with database.write() as session:
        row = session.scalars(select(tables.TokenRow)).one().contributor
        assert (row.name, row.created_at, row.blocked_at, row.blocked_reason) == (
            "ann", NOW, None, None,
        )  # fmt: skip
        row.blocked_at, row.blocked_reason = NOW, "ä"
    command.downgrade(config(database), "0011")
    with database.engine.connect() as connection:
        found = connection.execute(text("SELECT * FROM contributors")).mappings().one()
        assert (set(found), found["name"]) == ({"id", "name", "created_at"}, "ann")
        assert connection.scalar(text("SELECT contributor_id FROM tokens")) == 1


def test_the_migrations_make_what_the_tables_say(database: Database) -> None:
    migrate(database)
    command.check(config(database))


def test_values_come_back_as_they_went_in(database: Database) -> None:
    migrate(database)
    fill(database)
    with database.read() as session:
        model = session.scalars(select(tables.ModelRow)).one()
        assert model.created_at == NOW and model.created_at.tzinfo is not None
        assert model.policy == {"a": [1, "ä"]}
        assert session.scalars(select(tables.BaseFileRow.size)).one() == 2**45
        assert session.scalars(select(tables.ContributionRow.weight)).one() == 0.1


def test_one_model_has_one_open_round(database: Database) -> None:
    from sqlalchemy.exc import IntegrityError

    migrate(database)
    fill(database)
    table = tables.Table.metadata.tables["rounds"]
    values = {c.name: value_for(c) for c in table.columns}
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(table.insert().values({**values, "id": 2, "number": 2}))
    with database.write() as session:
        session.execute(table.insert().values({**values, "id": 3, "number": 3, "state": "closed"}))


def test_a_database_of_a_newer_version_is_not_touched(database: Database) -> None:
    migrate(database)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    for ask in (migrate, check_revision):
        with pytest.raises(DataFolderTooNew, match="9999"):
            ask(database)
    assert current_revision(database) == "9999"


def test_an_empty_database_is_told_to_migrate(database: Database) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_revision(database)
    assert caught.value.hint is not None and "migrate" in caught.value.hint
    migrate(database)
    check_revision(database)
