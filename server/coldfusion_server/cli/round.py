"""`coldfusion-server round`: close a round by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json, opened
from coldfusion_server.cli.output import show

app = typer.Typer(no_args_is_help=True, help="Decide on rounds.")


@app.command()
def close(
    model: Annotated[str, typer.Argument(help="owner/name")],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Close the open round now, with what it has. The worker then fuses it."""
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services.lookup import OPEN
    from coldfusion_server.services.rounds import close_by_hand

    with opened(data_dir, database_url) as context:
        closed = close_by_hand(context, model, OPEN, OPERATOR)
    show(
        closed.model_dump(mode="json"),
        as_json,
        f"Round {closed.number} of {model} is closed with {closed.accepted} contributions; "
        "a running worker fuses it.",
    )
