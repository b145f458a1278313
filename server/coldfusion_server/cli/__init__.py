"""The commands of `coldfusion-server`, one file each. They parse, call a service and print."""

from __future__ import annotations

from typing import Annotated

import typer

from coldfusion_server.cli import (
    audit,
    bisect,
    checks,
    contribution,
    contributor,
    db,
    doctor,
    evaluator,
    fuse,
    gc,
    health,
    invite,
    key,
    methods,
    migrate,
    model,
    model_moves,
    model_replay,
    openapi,
    round,
    round_moves,
    scheduler,
    settings,
    token,
    up,
    usage,
    verify,
    webhook,
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
model.app.command("rollback")(model_moves.rollback)
model.app.command("heads")(model_moves.heads)
model.app.command("replay")(model_replay.replay)
app.add_typer(model.app, name="model")
round.app.command("cancel")(round_moves.cancel)
round.app.command("again")(round_moves.again)
round.app.command("bisect")(bisect.bisect)
app.add_typer(round.app, name="round")
app.add_typer(contribution.app, name="contribution")
app.add_typer(contributor.app, name="contributor")
app.add_typer(token.app, name="token")
app.add_typer(invite.app, name="invite")
app.add_typer(webhook.app, name="webhook")
app.add_typer(audit.app, name="audit")
app.add_typer(db.app, name="db")
app.command("key")(key.key)
app.command("fuse")(fuse.fuse)
app.command("methods")(methods.methods)
app.command("checks")(checks.checks)
app.command("verify")(verify.verify)
app.command("gc")(gc.gc)
app.command("usage")(usage.usage)
app.command("doctor")(doctor.doctor)
app.command("health")(health.health)
app.command("settings")(settings.settings)
app.command("openapi")(openapi.openapi)
