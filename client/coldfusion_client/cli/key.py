"""``key``: by which key a server's bases are checked."""

from __future__ import annotations

from typing import Annotated

import typer

from coldfusion_client.cli.options import AsJson, Key, Quiet, Server
from coldfusion_client.cli.output import Output
from coldfusion_client.cli.session import reported


def key(
    file: Key = None,
    forget: Annotated[
        bool,
        typer.Option("--forget", help="Forget the key, and which bases the server has shown."),
    ] = False,
    server: Server = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """
    Show, give or forget the key by which a server's bases are checked.

    Its operator can tell which one is right: coldfusion-server key prints it.
    """
    out = Output(as_json=as_json, quiet=quiet)
    with reported(out):
        from coldfusion_client import trust
        from coldfusion_client.opening import choose
        from coldfusion_shared.errors import BadKey

        url, _ = choose(server)
        if forget:
            found = trust.forget(url)
            said = "Forgotten: the key of" if found else "No key was known of"
            out.result({"server": url, "forgotten": found}, f"{said} {url}.")
            return
        if file is not None:
            trust.give(url, trust.read_key(file))
        known = trust.known_key(url)
        if known is None:
            raise BadKey(
                f"No key of {url} is known yet.",
                hint="The first pull keeps the one that the server shows; or give it with "
                "--key FILE.",
            )
        data = {"server": url, "id": known.id, "pem": known.pem.decode()}
        out.result(data, f"{known.pem.decode()}{url} signs with it; its id: {known.id}", known.id)
