"""`coldfusion-server up`: the whole Repository in one process."""

from __future__ import annotations

import sys
from pathlib import Path
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
    evaluate: Annotated[
        Path | None,
        typer.Option(
            help="Measure every base with the suite of this file, by the frozen protocol, in a "
            "process beside. See: coldfusion-server evaluator --help."
        ),
    ] = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="With --evaluate: try bases again that were left after failures."
        ),
    ] = False,
    first_token: Annotated[
        bool, typer.Option(help="Make and show an admin's token if there is none.")
    ] = True,
    log_level: LogLevel = None,
    log_json: LogJson = False,
) -> None:
    """Serve API and dashboard, close rounds, screen and fuse: all in one process.

    The first start makes the data folder, the database and an admin's token, which is shown once.
    """
    from coldfusion_server.evaluator import check_startable
    from coldfusion_server.process import Repository
    from coldfusion_server.settings import load_settings
    from coldfusion_shared.errors import InvalidRequest

    settings = load_settings(
        data_dir=data_dir,
        host=host,
        port=port,
        database_url=database_url,
        log_level=log_level,
        log_json=log_json or None,
    )
    command = None
    if again and evaluate is None:
        raise InvalidRequest(
            "--again is for --evaluate: nothing is measured without a suite.",
            hint="Give the suite's file as well: --evaluate suite.yaml --again",
        )
    if evaluate is not None:
        check_startable(evaluate)
        command = _evaluator(evaluate, data_dir, log_level, log_json)
    # It may hold a password, and other users see command lines.
    private = {} if database_url is None else {"COLDFUSION_DATABASE_URL": database_url}
    with Repository(
        settings,
        scheduler=scheduler,
        worker=worker,
        first_token=first_token,
        evaluator=command,
        evaluator_settings=private,
        # A base that ends the evaluator's process would otherwise be tried for ever.
        evaluator_once=["--again"] * again,
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


def _evaluator(
    suite: Path,
    data_dir: Path | None,
    log_level: str | None,
    log_json: bool,
) -> list[str]:
    """Return the command of an evaluator with the flags that were given here, but for secrets."""
    flags = {
        "--suite": suite,
        "--data-dir": data_dir,
        "--log-level": log_level,
    }
    given = [word for name, value in flags.items() if value for word in (name, str(value))]
    program = [sys.executable, "-m", "coldfusion_server", "evaluator", "--beside"]
    return [*program, *given, *["--log-json"] * log_json]
