"""`coldfusion-server up`: the whole Repository in one process."""

from __future__ import annotations

from typing import Annotated

import typer

from coldfusion_server.cli.options import DatabaseUrl, DataDir, LogJson, LogLevel


def up(
    data_dir: DataDir = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0: any free one.", min=0, max=65535)
    ] = None,
    database_url: DatabaseUrl = None,
    scheduler: Annotated[bool, typer.Option(help="Close rounds in this process.")] = True,
    worker: Annotated[bool, typer.Option(help="Screen and fuse in this process.")] = True,
    first_token: Annotated[
        bool, typer.Option(help="Make and show an admin's token if there is none.")
    ] = True,
    log_level: LogLevel = None,
    log_json: LogJson = False,
) -> None:
    """Serve API and dashboard, close rounds, screen and fuse: all in one process.

    The first start makes the data folder, the database and an admin's token, which is shown once.
    """
    from coldfusion_server.process import Repository
    from coldfusion_server.settings import load_settings

    settings = load_settings(
        data_dir=data_dir,
        host=host,
        port=port,
        database_url=database_url,
        log_level=log_level,
        log_json=log_json or None,
    )
    with Repository(
        settings, scheduler=scheduler, worker=worker, first_token=first_token
    ) as repository:
        typer.secho(f"coldfusion is up: {repository.url}", bold=True)
        if settings.needs_folder:
            typer.echo(f"  data    {settings.data_dir.absolute()}")
        if repository.first_token is not None:
            typer.echo(f"  token   {repository.first_token}")
            typer.echo("          of the admin, shown this once; log in with it:")
            typer.echo(f"          coldfusion-client login {repository.url}")
        typer.echo("  stop    Ctrl-C")
        repository.serve()
