"""`coldfusion-server invite`: codes that make somebody a contributor, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json, opened, parse_duration
from coldfusion_server.cli.output import show, table
from coldfusion_shared.schemas.tokens import Role

if TYPE_CHECKING:
    from coldfusion_server.services.context import Context
    from coldfusion_shared.schemas.invitations import Invitation

app = typer.Typer(no_args_is_help=True, help="Invite people: each code is good once.")


@app.command()
def create(
    role: Annotated[Role, typer.Option(help="What the token will allow.")] = Role.CONTRIBUTOR,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model that the role is for; may be repeated. Default: all."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Who is invited; a contributor of that name gets one more token. Default: whoever "
            "has the code, under a new name."
        ),
    ] = None,
    expires: Annotated[str, typer.Option(help="How long the code is good: 7d, 24h.")] = "7d",
    token_expires: Annotated[
        str | None, typer.Option(help="How long the token will be good. Default: for ever.")
    ] = None,
    count: Annotated[int, typer.Option(help="How many codes to make.", min=1, max=1000)] = 1,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """
    Make codes for people to join with. They are shown this once, each on a line of its own.

    Who has one runs: coldfusion-client join URL CODE
    """
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.cli.requests import checked
    from coldfusion_server.services.invitations import invite
    from coldfusion_shared.schemas.invitations import InvitationRequest

    wanted = checked(
        InvitationRequest,
        role=role,
        models=model or None,
        name=name,
        valid_seconds=_seconds(expires),
        token_seconds=_seconds(token_expires),
    )
    with opened(data_dir, database_url) as context:
        made = [invite(context, wanted, OPERATOR) for _ in range(count)]
        # The port may have been a flag of `up`, which nobody here knows of.
        url = context.settings.public_url or "URL"
    # The codes alone on standard output, so that a script can take them.
    data = [one.model_dump(mode="json") for one in made]
    show(data, as_json, "\n".join(one.code for one in made))
    if not as_json:
        until = f"{made[0].invitation.expires_at:%Y-%m-%d %H:%M} UTC"
        typer.echo(f"Good once, until {until}: coldfusion-client join {url} CODE", err=True)


@app.command("list")
def list_invitations(
    data_dir: DataDir = None, database_url: DatabaseUrl = None, as_json: Json = False
) -> None:
    """List all invitations, newest first, without their codes."""
    with opened(data_dir, database_url) as context:
        found = _all(context)
    head = ("ID", "STATE", "ROLE", "MODELS", "FOR", "BY", "EXPIRES", "JOINED")
    rows = [
        (
            one.id,
            one.state,
            one.role,
            ", ".join(one.models or ()) or "-",
            one.name or "-",
            one.made_by or "operator",
            f"{one.expires_at:%Y-%m-%d %H:%M}",
            one.joined or "-",
        )
        for one in found
    ]
    text = table(head, rows) if rows else "There is no invitation yet; see: invite create --help"
    show([one.model_dump(mode="json") for one in found], as_json, text)


@app.command()
def revoke(
    invitation: Annotated[str, typer.Argument(help="Its id.")],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Let a code that nobody has used be good no more."""
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services.invitations import revoke_invitation

    with opened(data_dir, database_url) as context:
        done = revoke_invitation(context, invitation, OPERATOR)
    show(done.model_dump(mode="json"), as_json, f"The invitation {done.id} is {done.state}.")


def _seconds(text: str | None) -> int | None:
    length = parse_duration(text)
    return None if length is None else int(length.total_seconds())


def _all(context: Context) -> list[Invitation]:
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services.invitations import list_invitations as find
    from coldfusion_server.services.paging import MAX_LIMIT, Window

    found: list[Invitation] = []
    cursor = None
    while True:
        page = find(context, OPERATOR, Window(cursor, MAX_LIMIT))
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found
