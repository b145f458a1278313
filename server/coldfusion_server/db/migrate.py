"""Bring a database to this version's tables, by alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

import coldfusion_server
from coldfusion_server.db.database import Database, named_errors
from coldfusion_shared.errors import ConfigurationError, DataFolderTooNew

_PACKAGE = Path(coldfusion_server.__file__).parent


def migrations_folder() -> Path:
    """Return the folder of the migrations: the checkout's, or the copy in the installed wheel."""
    checkout = _PACKAGE.parents[1] / "migrations"
    return checkout if (checkout / "env.py").is_file() else _PACKAGE / "_migrations"


def current_revision(database: Database) -> str | None:
    """Return the revision that the database is at; null if it is empty."""
    with named_errors(), database.engine.connect() as connection:
        return revision_of(connection)


def revision_of(connection: Connection) -> str | None:
    """Return the revision as the connection's transaction sees it; null if there are no tables."""
    return MigrationContext.configure(connection).get_current_revision()


def newest_revision() -> str:
    """Return the revision that this version needs."""
    head = ScriptDirectory(str(migrations_folder())).get_current_head()
    assert head is not None
    return head


def check_revision(database: Database) -> None:
    """
    Check that the database has this version's tables.

    Raises:
        ConfigurationError: it is empty or older.
        DataFolderTooNew: a newer version of coldfusion has written it.
    """
    current = current_revision(database)
    check_known(current)
    if current != newest_revision():
        raise ConfigurationError(
            "The database has not been made, or not brought up to date.",
            hint="Run coldfusion-server migrate with the same --data-dir or --database-url.",
        )


def migrate(database: Database) -> tuple[str | None, str]:
    """
    Upgrade the database and return the revisions before and after.

    Of several processes that start at once, one does it and the others wait.

    Raises:
        DataFolderTooNew: a newer version of coldfusion has written it.
    """
    with database.alone() as session:
        connection = session.connection()
        before, target = revision_of(connection), newest_revision()
        check_known(before)
        if before != target:
            upgrade(connection, target)
    return before, target


def upgrade(connection: Connection, revision: str) -> None:
    """Upgrade to `revision` inside the connection's transaction."""
    command.upgrade(_config(connection), revision)


def empty(connection: Connection) -> None:
    """Take all tables away, inside the connection's transaction."""
    command.downgrade(_config(connection), "base")


def check_known(revision: str | None) -> None:
    """Raise `DataFolderTooNew` if a newer version of coldfusion has made `revision`."""
    scripts = ScriptDirectory(str(migrations_folder()))
    known = {script.revision for script in scripts.walk_revisions()}
    if revision is not None and revision not in known:
        raise DataFolderTooNew(
            f"The database is at revision {revision}, which this version does not know.",
            hint="It was written by a newer coldfusion; install that version, or use another "
            "--data-dir.",
        )


def _config(connection: Connection) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(migrations_folder()))
    return config
