"""`coldfusion-server db`: save the database, bring it back, move it to another one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json
from coldfusion_server.cli.output import show

if TYPE_CHECKING:
    from coldfusion_server.db.backup import Moved
    from coldfusion_server.db.database import Database

app = typer.Typer(no_args_is_help=True, help="Save the database, bring it back, move it.")

OBJECTS = "The objects (weights and other files) are not in it: save their folder or bucket now."


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="File to write; one of that name is replaced.")],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Write the whole database to a file, as of one moment; a server may run and go on.

    The objects are not in it. Save their folder or bucket after this, not before.
    """
    from coldfusion_server.cli.bars import row_bar
    from coldfusion_server.db.backup import backup as save

    with _opened(data_dir, database_url) as database, row_bar("saving") as report:
        database.check_file()
        found = save(database, file, report)
    _show(found, file, as_json, f"{found.total} rows were saved to {file}.\n{OBJECTS}")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A file that `db backup` has written.")],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Fill an empty database from a backup, of SQLite or PostgreSQL alike: all of it or nothing.

    Bring the objects back first, then the database, then start the server.
    """
    from coldfusion_server.cli.bars import row_bar
    from coldfusion_server.db.backup import restore as bring_back

    with _opened(data_dir, database_url, make=True) as database, row_bar("restoring") as report:
        found = bring_back(database, file, report)
    _show(found, file, as_json, f"{found.total} rows were brought back from {file}.")


@app.command()
def copy(
    to: Annotated[str, typer.Option("--to", help="SQLAlchemy URL of an empty database.")],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Copy the database to another one, as from SQLite to PostgreSQL. Stop the server first.

    The old one stays as it is; nothing is copied where a server still uses it.
    """
    from coldfusion_server.cli.bars import row_bar
    from coldfusion_server.db.copy import copy as move
    from coldfusion_server.db.database import Database

    target = Database(to)
    try:
        with _opened(data_dir, database_url) as database, row_bar("copying") as report:
            found = move(database, target, report)
    finally:
        target.close()
    shown = target.engine.url.render_as_string(hide_password=True)
    text = f"{found.total} rows were copied to {shown} and compared.\n"
    _show(found, shown, as_json, f"{text}Set database_url to it, then start the server.")


@contextmanager
def _opened(
    data_dir: Path | None, database_url: str | None, *, make: bool = False
) -> Iterator[Database]:
    """Open the database alone, whatever its revision; `make` makes the folder of SQLite's."""
    from coldfusion_server.db.database import Database
    from coldfusion_server.settings import load_settings
    from coldfusion_shared.errors import ConfigurationError

    settings = load_settings(data_dir=data_dir, database_url=database_url)
    if make and settings.database_url is None:
        try:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"The data folder {str(settings.data_dir)!r} cannot be used: {error.strerror}.",
                hint="Choose another with --data-dir.",
            ) from None
    database = Database(settings.database)
    try:
        yield database
    finally:
        database.close()


def _show(found: Moved, where: Path | str, as_json: bool, text: str) -> None:
    data = {"where": str(where), "revision": found.revision, "rows": found.rows}
    show(data, as_json, text)
