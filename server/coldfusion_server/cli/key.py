"""`coldfusion-server key`: what bases are signed with."""

from __future__ import annotations

from typing import Annotated

import typer

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json, opened
from coldfusion_server.cli.output import show


def key(
    sign_again: Annotated[
        bool,
        typer.Option(
            "--sign-again",
            help="Check all bases and sign them with it; with no other process running.",
        ),
    ] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Print the public key that bases are signed with, and its id."""
    from coldfusion_server.services import signing

    with opened(data_dir, database_url) as context:
        public = context.signing_key.public
        signed = signing.sign_again(context) if sign_again else None
    data = {
        "id": public.id,
        "pem": public.pem.decode(),
        "signed_again": None if signed is None else signed.bases,
        "unsigned_before": None if signed is None else signed.unsigned,
    }
    # The key alone on standard output, so that it can be written to a file.
    show(data, as_json, public.pem.decode().rstrip("\n"))
    if not as_json:
        typer.echo(f"Its id: {public.id}", err=True)
        if signed is not None:
            typer.echo(f"{signed.bases} bases are signed with it.", err=True)
            if signed.unsigned:
                named = ", ".join(signed.unsigned)
                typer.echo(f"These had no signature before: {named}.", err=True)
