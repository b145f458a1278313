"""`coldfusion-server settings`: what is in force."""

from __future__ import annotations

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json
from coldfusion_server.cli.output import show, table


def settings(
    data_dir: DataDir = None, database_url: DatabaseUrl = None, as_json: Json = False
) -> None:
    """Show the settings in force, secrets masked.

    They come from COLDFUSION_* in the environment, settings.toml in the data folder, and flags; the
    later ones win.
    """
    from coldfusion_server.settings import load_settings

    loaded = load_settings(data_dir=data_dir, database_url=database_url)
    data = loaded.model_dump(mode="json")
    fields = type(loaded).model_fields
    rows = [
        (name, "-" if value is None else value, fields[name].description)
        for name, value in data.items()
    ]
    show(data, as_json, table(("SETTING", "VALUE", "MEANING"), rows))
