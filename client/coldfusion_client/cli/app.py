"""The command line as a whole."""

from __future__ import annotations

from typing import Annotated

import typer

from coldfusion_client.cli import (
    contribute,
    doctor,
    evaluate,
    init,
    join,
    key,
    login,
    models,
    pull,
    push,
    status,
    verify,
    watch,
    withdraw,
)
from coldfusion_client.cli.errors import epilog
from coldfusion_shared import __version__

# Plain help: drawn help would load rich for every --help.
app = typer.Typer(
    help="Improve a shared model: pull its newest base, finetune it at home, send back weights.",
    epilog=epilog(),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"coldfusion-client {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


for name, command in (
    ("login", login.login),
    ("join", join.join),
    ("logout", login.logout),
    ("models", models.models),
    ("init", init.init),
    ("contribute", contribute.contribute),
    ("push", push.push),
    ("pull", pull.pull),
    ("verify", verify.verify),
    ("key", key.key),
    ("evaluate", evaluate.evaluate),
    ("status", status.status),
    ("watch", watch.watch),
    ("withdraw", withdraw.withdraw),
    ("doctor", doctor.doctor),
):
    app.command(name, epilog=epilog())(command)
