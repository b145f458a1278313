"""Alembic's entry point. The database is the server's, by the server's own settings."""

from alembic import context
from sqlalchemy import Connection

from coldfusion_server.db.database import Database
from coldfusion_server.db.tables import Table
from coldfusion_server.settings import load_settings


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Table.metadata,
        compare_type=True,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


# Not get_main_option: that one wants an alembic.ini, and ours is [tool.alembic] in pyproject.toml.
given = context.config.attributes
if "connection" in given:
    # The caller's transaction, which it also ends.
    run(given["connection"])
else:
    database = Database(given.get("url") or load_settings().database)
    with database.engine.connect() as connection:
        run(connection)
        connection.commit()
    database.close()
