"""The commands of `coldfusion-server`, one file each. They parse, call a service and print."""

from __future__ import annotations

from typing import Annotated

import typer

from coldfusion_server.cli import (
    db,
    doctor,
    evaluator,
    fuse,
    gc,
    health,
    methods,
    migrate,
    model,
    openapi,
    round,
    scheduler,
    settings,
    token,
    up,
    usage,
    worker,
)
from coldfusion_shared import __version__

EPILOG = "Exit codes: 0 done, 1 failed (one sentence says why), 2 wrong usage, 130 interrupted."

app = typer.Typer(
    no_args_is_help=True,
    help="Run a Repository: keep bases, take contributions, fuse them, publish.",
    epilog=EPILOG,
    pretty_exceptions_enable=False,
    add_completion=True,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"coldfusion-server {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options that go before the command."""


app.command("up")(up.up)
app.command("scheduler")(scheduler.scheduler)
app.command("worker")(worker.worker)
app.command("evaluator")(evaluator.evaluator)
app.command("migrate")(migrate.migrate)
app.add_typer(model.app, name="model")
app.add_typer(round.app, name="round")
app.add_typer(token.app, name="token")
app.add_typer(db.app, name="db")
app.command("fuse")(fuse.fuse)
app.command("methods")(methods.methods)
app.command("gc")(gc.gc)
app.command("usage")(usage.usage)
app.command("doctor")(doctor.doctor)
app.command("health")(health.health)
app.command("settings")(settings.settings)
app.command("openapi")(openapi.openapi)
