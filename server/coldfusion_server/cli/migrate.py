"""`coldfusion-server migrate`: bring the database to this version's tables."""

from __future__ import annotations

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json
from coldfusion_server.cli.output import show


def migrate(
    data_dir: DataDir = None, database_url: DatabaseUrl = None, as_json: Json = False
) -> None:
    """Bring the database to this version's tables. `up` does it by itself."""
    from coldfusion_server.db.migrate import migrate as upgrade
    from coldfusion_server.services.context import open_context
    from coldfusion_server.settings import load_settings

    context = open_context(load_settings(data_dir=data_dir, database_url=database_url))
    try:
        before, after = upgrade(context.database)
    finally:
        context.close()
    changed = f"upgraded from {before or 'nothing'} to {after}"
    show(
        {"before": before, "after": after},
        as_json,
        "The database is up to date." if before == after else f"The database was {changed}.",
    )
