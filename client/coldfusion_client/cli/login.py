"""``login`` and ``logout``: a token for a server, kept for the owner's eyes only."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from coldfusion_client.cli.options import AsJson, Quiet
from coldfusion_client.cli.output import Output
from coldfusion_client.cli.session import reported
from coldfusion_client.cli.text import ago, clean

Url = Annotated[str, typer.Argument(metavar="URL", envvar="COLDFUSION_SERVER")]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="COLDFUSION_TOKEN",
        show_envvar=True,
        metavar="TOKEN",
        help="Better asked for or read from standard input: other users see command lines.",
    ),
]


def login(url: Url, token: Token = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Keep a token for a server, which becomes the default one."""
    out = Output(as_json=as_json, quiet=quiet)
    with reported(out):
        from coldfusion_client import config
        from coldfusion_client.opening import open_api

        server = config.server_url(url)
        if config.is_exposed(server):
            out.warn(f"{server} is not encrypted; everybody on the way can read the token.")
        token = (token or _ask()).strip()
        config.check_token(token)
        with open_api(server, token, out.warn) as api:
            me = api.whoami()
        file = config.credentials_file()
        credentials = config.load_credentials(file)
        credentials.remember(server, token)
        config.save_credentials(file, credentials)
        expiry = f" The token expires {ago(me.expires_at)}." if me.expires_at else ""
        out.result(
            {"server": server, **me.model_dump(mode="json")},
            f"Logged in to {server} as {clean(me.name)} ({me.role}).{expiry}",
        )


def logout(
    url: Annotated[str | None, typer.Argument(metavar="[URL]")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Forget the token for a server, by default for the default one."""
    out = Output(as_json=as_json, quiet=quiet)
    with reported(out):
        from coldfusion_client import config

        file = config.credentials_file()
        credentials = config.load_credentials(file)
        server = config.choose_server(url, credentials)
        found = credentials.forget(server)
        config.save_credentials(file, credentials)
        said = "Logged out of" if found else "There was no token for"
        out.result({"server": server, "forgotten": found}, f"{said} {server}.")


def _ask() -> str:
    if sys.stdin.isatty():
        answer: str = typer.prompt("Token", hide_input=True, err=True)
        return answer
    return sys.stdin.readline()
