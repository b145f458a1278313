"""Alembic's entry point. The database is the server's, by the server's own settings."""

from alembic import context

from coldfusion_server.db.database import Database
from coldfusion_server.db.tables import Table
from coldfusion_server.settings import load_settings

# Not get_main_option: that one wants an alembic.ini, and ours is [tool.alembic] in pyproject.toml.
url = context.config.attributes.get("url") or load_settings().database
database = Database(url)

with database.engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=Table.metadata,
        compare_type=True,
        render_as_batch=database.is_sqlite,
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
database.close()
