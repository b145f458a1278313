"""`coldfusion-server health`: what a container's health check asks."""

from __future__ import annotations

from typing import Annotated

import typer

from coldfusion_server.cli.options import DataDir, Json
from coldfusion_server.cli.output import show
from coldfusion_server.services.heartbeat import Part


def health(
    part: Annotated[Part, typer.Argument(help="api, scheduler, worker or evaluator")],
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Tell whether the process of that part, on this machine or in this container, is well.

    The API is asked for /readyz. The others touch a file in `run_dir` while their work moves on;
    one that hangs does not. Exit code 1: not well.
    """
    from coldfusion_server.services.probes import examine_process
    from coldfusion_server.settings import load_settings

    found = examine_process(load_settings(data_dir=data_dir), part)
    hint = f" {found.hint}" if found.hint else ""
    show(vars(found), as_json, f"{found.subject}: {found.message}{hint}")
    if not found.ok:
        raise typer.Exit(1)
