"""`coldfusion-server round`: close a round by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json, opened
from coldfusion_server.cli.output import show

if TYPE_CHECKING:
    from coldfusion_shared.schemas.rounds import Round

app = typer.Typer(no_args_is_help=True, help="Decide on rounds.")


@app.command()
def close(
    model: Annotated[str, typer.Argument(help="owner/name")],
    number: Annotated[
        int | None, typer.Argument(help="The open round; without it, that one is only named.")
    ] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Close the open round now, with what it has. The worker then fuses it."""
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.cli.requests import number_needed
    from coldfusion_server.services.closing import close_by_hand
    from coldfusion_server.services.lookup import OPEN
    from coldfusion_server.services.rounds import count_taken, get_round

    with opened(data_dir, database_url) as context:
        if number is None:
            raise number_needed(get_round(context, model, OPEN, OPERATOR), "close")
        closed = close_by_hand(context, model, str(number), OPERATOR)
        took = count_taken(context, model, number, OPERATOR)
    show(closed.model_dump(mode="json"), as_json, _told(closed, took))


def _told(closed: Round, took: int) -> str:
    from coldfusion_server.dashboard.formats import count

    left = closed.accepted - took
    kept = f", {left} {'is' if left == 1 else 'are'} kept for the next one" if left else ""
    return (
        f"Round {closed.number} of {closed.model} is closed with {count(took, 'contribution')}"
        f"{kept}; a running worker fuses it."
    )
