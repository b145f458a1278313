"""Options and arguments that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coldfusion_client.cli.completion import complete_model

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="owner/name", autocompletion=complete_model)
]
Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar="COLDFUSION_SERVER",
        metavar="URL",
        help="Which server; by default the one that you logged in to last.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Write only the bare result.")]
Key = Annotated[
    Path | None,
    typer.Option(
        "--key",
        envvar="COLDFUSION_KEY",
        metavar="FILE",
        help="Public key that the server's bases are signed with, PEM; by default the one that was "
        "given or met before.",
    ),
]
Onto = Annotated[
    str | None,
    typer.Option(
        "--onto",
        metavar="latest",
        help="Put the update onto the newest base where that is another one by now.",
    ),
]
Encoding = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="The form of the update: full, delta, delta-int8, delta-sparse or delta-sign, each "
        "smaller and less exact than the one before; lora: the adapter. auto: the adapter where "
        "one was learnt, else the most exact one that is sent within a minute.",
    ),
]
Wait = Annotated[
    bool,
    typer.Option("--wait/--no-wait", help="Wait for the verdict of the screening, by polling."),
]
Progress = Annotated[
    bool,
    typer.Option(
        "--progress/--no-progress",
        help="Show bars, or lines at intervals where there is no terminal.",
    ),
]


def is_onto_latest(onto: str | None) -> bool:
    """Return whether `--onto latest` was given; raises a usage error for anything else."""
    if onto not in {None, "latest"}:
        raise typer.BadParameter("only 'latest' is known", param_hint="--onto")
    return onto == "latest"
