"""``pull``: a base into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coldfusion_client.cli.errors import NOTHING_NEWER
from coldfusion_client.cli.options import AsJson, Model, Progress, Quiet, Server
from coldfusion_client.cli.session import session


def pull(
    model: Model,
    version: Annotated[str, typer.Option(metavar="latest|v3", help="Which base.")] = "latest",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to; by default a folder of the model's name."),
    ] = None,
    if_newer: Annotated[
        bool,
        typer.Option("--if-newer", help="End with 3 if the folder holds that base or a newer one."),
    ] = False,
    progress: Progress = True,
    server: Server = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """
    Get a base as a transformers folder, every file verified.

    The folder is printed. One that was pulled before is brought up to date.
    """
    with session(server, as_json=as_json, quiet=quiet, progress=progress) as at:
        from coldfusion_client.bases import model_name, version_name
        from coldfusion_client.pull import pull as fetch

        pulled = fetch(
            at.source, model_name(model), version_name(version), out, only_newer=if_newer
        )
        if pulled.updated:
            at.out.say(f"{pulled.model} {pulled.version}, verified:")
        elif version == "latest":
            at.out.say(f"already newest ({pulled.version})")
        else:
            at.out.say(f"already there ({pulled.version})")
        at.out.result(pulled.as_json(), str(pulled.path), str(pulled.path))
        if if_newer and not pulled.updated:
            raise typer.Exit(NOTHING_NEWER)
