"""``pull``: a base into a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coldfusion_client.cli.errors import NOTHING_NEWER, ROLLED_BACK
from coldfusion_client.cli.options import AsJson, Key, Model, Progress, Quiet, Server
from coldfusion_client.cli.session import session

if TYPE_CHECKING:
    from coldfusion_client.pull import Pulled
    from coldfusion_shared.schemas.models import HeadMove


def pull(
    model: Model,
    version: Annotated[str, typer.Option(metavar="latest|v3", help="Which base.")] = "latest",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to; by default a folder of the model's name."),
    ] = None,
    if_newer: Annotated[
        bool,
        typer.Option(
            "--if-newer",
            help="End with 3 if the folder holds that base or a newer one, with 13 if that one was "
            "taken back.",
        ),
    ] = False,
    key: Key = None,
    progress: Progress = True,
    server: Server = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """
    Get a base as a transformers folder, every file verified, and signed by its Repository.

    The folder is printed. One that was pulled before is brought up to date.
    """
    with session(server, as_json=as_json, quiet=quiet, progress=progress) as at:
        from coldfusion_client.bases import model_name, version_name
        from coldfusion_client.pull import pull as fetch

        source = replace(at.source, key=key)
        pulled = fetch(source, model_name(model), version_name(version), out, only_newer=if_newer)
        if pulled.updated:
            at.out.say(f"{pulled.model} {pulled.version}, verified:")
        elif pulled.rolled_back is not None:
            at.out.warn(_went_back(pulled, pulled.rolled_back))
        elif version == "latest":
            at.out.say(f"already newest ({pulled.version})")
        else:
            at.out.say(f"already there ({pulled.version})")
        at.out.result(pulled.as_json(), str(pulled.path), str(pulled.path))
        if if_newer and not pulled.updated:
            raise typer.Exit(ROLLED_BACK if pulled.rolled_back else NOTHING_NEWER)


def _went_back(pulled: Pulled, move: HeadMove) -> str:
    from coldfusion_client.quoting import command_line
    from coldfusion_client.rollbacks import told

    return (
        f"{told(move, pulled.model)} The folder still has {pulled.version}; to get the newest "
        f"base: coldfusion-client pull {pulled.model} --out {command_line(str(pulled.path))}"
    )
