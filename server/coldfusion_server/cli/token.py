"""`coldfusion-server token`: who may do what."""

from __future__ import annotations

from typing import Annotated

import typer

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json, opened, parse_duration
from coldfusion_server.cli.output import show, table
from coldfusion_shared.schemas.tokens import Role

app = typer.Typer(no_args_is_help=True, help="Give and take tokens.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="The contributor's name.")],
    role: Annotated[Role, typer.Option(help="What the token allows.")],
    expires: Annotated[
        str | None, typer.Option(help="How long it is good: 90d, 24h. Default: for ever.")
    ] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Make a token for a contributor. It is shown this once."""
    from coldfusion_server.services.tokens import create_token

    with opened(data_dir, database_url) as context:
        token, expires_at = create_token(context, name, role, parse_duration(expires))
    data = {"name": name, "role": role.value, "token": token, "expires_at": expires_at}
    # The token alone on standard output, so that a script can take it.
    show(data, as_json, token)
    if not as_json:
        until = "for ever" if expires_at is None else f"until {expires_at:%Y-%m-%d %H:%M} UTC"
        typer.echo(f"A {role.value}'s token for {name}, good {until}; shown this once.", err=True)


@app.command("list")
def list_tokens(
    data_dir: DataDir = None, database_url: DatabaseUrl = None, as_json: Json = False
) -> None:
    """List all tokens, without their secrets."""
    from coldfusion_server.services.tokens import list_tokens as find

    with opened(data_dir, database_url) as context:
        rows = [
            {
                "id": row.id,
                "name": row.contributor.name,
                "role": row.role,
                "created_at": row.created_at,
                "expires_at": row.expires_at,
                "revoked_at": row.revoked_at,
            }
            for row in find(context)
        ]
    head = ("ID", "NAME", "ROLE", "CREATED", "EXPIRES", "REVOKED")
    lines = [
        [f"{value:%Y-%m-%d %H:%M}" if hasattr(value, "year") else value or "-" for value in values]
        for values in (row.values() for row in rows)
    ]
    show(rows, as_json, table(head, lines))


@app.command()
def revoke(
    name_or_id: Annotated[str, typer.Argument(help="A token's id, or a contributor's name.")],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Revoke one token, or all of a contributor."""
    from coldfusion_server.services.tokens import revoke_token

    with opened(data_dir, database_url) as context:
        count = revoke_token(context, name_or_id)
    show({"revoked": count}, as_json, f"Revoked: {count}.")
