"""`coldfusion-server round`: cancel a round, or have what a gate has rejected fused again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json, opened
from coldfusion_server.cli.output import show
from coldfusion_shared.errors import Conflict, StateConflict

if TYPE_CHECKING:
    from coldfusion_shared.schemas.rounds import FusedAgain

Model = Annotated[str, typer.Argument(help="owner/name")]


def cancel(
    model: Model,
    reason: Annotated[str, typer.Option(help="Why; everybody can read it.")],
    number: Annotated[
        int | None, typer.Argument(help="The round; without it, the newest one is only named.")
    ] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """End a round that is open or under way without a base; what it had goes into the next one."""
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.cli.requests import checked, number_needed
    from coldfusion_server.services.cancelling import cancel as end
    from coldfusion_server.services.paging import Window
    from coldfusion_server.services.rounds import list_rounds
    from coldfusion_shared.schemas.rounds import CancelRequest

    wanted = checked(CancelRequest, reason=reason)
    with opened(data_dir, database_url) as context:
        if number is None:
            newest = list_rounds(context, model, OPERATOR, Window(limit=1)).items[0]
            raise number_needed(newest, "cancel", " --reason TEXT")
        done = end(context, model, str(number), wanted.reason, OPERATOR)
    text = f"Round {done.number} of {model} is cancelled; what it had goes into the next one."
    show(done.model_dump(mode="json"), as_json, text)


def again(
    model: Model,
    number: Annotated[int, typer.Argument(help="A round that its gate has rejected.")],
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="A contribution to leave out, for good; repeatable."),
    ] = None,
    reason: Annotated[
        str | None, typer.Option(help="Why they are left out; their contributors read it.")
    ] = None,
    close: Annotated[
        bool, typer.Option("--close", help="Close the open round then, whatever it waits for.")
    ] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Put what a rejected round has set aside into the open round, to be fused again."""
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.cli.requests import checked
    from coldfusion_server.services.again import fuse_again
    from coldfusion_server.services.closing import close_by_hand
    from coldfusion_shared.schemas.rounds import AgainRequest

    wanted = checked(AgainRequest, without=without or [], reason=reason)
    with opened(data_dir, database_url) as context:
        done = fuse_again(context, model, str(number), wanted, OPERATOR)
        try:
            if close:
                closed = close_by_hand(context, model, str(done.round.number), OPERATOR)
                done = done.model_copy(update={"round": closed})
        except Conflict as error:
            what = f"{_told(number, done)} It was not closed: {error.message}"
            raise StateConflict(what, hint=error.hint) from None
    show(done.model_dump(mode="json"), as_json, _told(number, done))


def _told(number: int, done: FusedAgain) -> str:
    parts = [f"{len(done.accepted)} of round {number} are in round {done.round.number} now"]
    parts += [f"left out: {len(done.left_out)}"] * bool(done.left_out)
    parts += [f"too old by now: {len(done.too_old)}"] * bool(done.too_old)
    return "; ".join(parts) + f". Round {done.round.number} is {done.round.state}."
