"""`coldfusion-server token`: who may do what."""

from __future__ import annotations

from datetime import datetime
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
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model that the role is for; may be repeated. Default: all."),
    ] = None,
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
        token, expires_at = create_token(context, name, role, parse_duration(expires), model)
    data = {
        "name": name,
        "role": role.value,
        "models": model,
        "token": token,
        "expires_at": expires_at,
    }
    # The token alone on standard output, so that a script can take it.
    show(data, as_json, token)
    if not as_json:
        until = "for ever" if expires_at is None else f"until {expires_at:%Y-%m-%d %H:%M} UTC"
        where = f" of {', '.join(model)}" if model else ""
        typer.echo(
            f"A {role.value}'s token{where} for {name}, good {until}; shown this once.", err=True
        )


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
                "models": row.models,
                "created_at": row.created_at,
                "expires_at": row.expires_at,
                "revoked_at": row.revoked_at,
                "blocked_at": row.contributor.blocked_at,
            }
            for row in find(context)
        ]
    head = ("ID", "NAME", "ROLE", "MODELS", "CREATED", "EXPIRES", "REVOKED", "BLOCKED")
    lines = [[_cell(value) for value in row.values()] for row in rows]
    show(rows, as_json, table(head, lines))


@app.command()
def revoke(
    name_or_id: Annotated[str, typer.Argument(help="A token's id, or a contributor's name.")],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Revoke one token, or all of a contributor, and open invitations that were made by them."""
    from coldfusion_server.services.tokens import revoke_token

    with opened(data_dir, database_url) as context:
        count = revoke_token(context, name_or_id)
    show({"revoked": count}, as_json, f"Revoked: {count}.")


def _cell(value: object) -> object:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return ", ".join(value) if isinstance(value, list) else value or "-"
