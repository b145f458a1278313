"""``join``: an invitation becomes a token, kept for the owner's eyes only."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from coldfusion_client.cli.options import AsJson, Quiet
from coldfusion_client.cli.output import Output
from coldfusion_client.cli.session import reported
from coldfusion_client.cli.text import ago, clean


def join(
    url: Annotated[str, typer.Argument(metavar="URL", envvar="COLDFUSION_SERVER")],
    code: Annotated[
        str | None,
        typer.Argument(
            metavar="[CODE]",
            help="The invitation's; without it, it is asked for or read from standard input.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The name to go by, which everybody sees beside your contributions, where the "
            "invitation leaves it to you.",
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Join a server by an invitation; its token is kept, and the server becomes the default one."""
    out = Output(as_json=as_json, quiet=quiet)
    with reported(out):
        from coldfusion_client import config
        from coldfusion_client.joining import join as use
        from coldfusion_client.opening import open_api

        server = config.server_url(url)
        if config.is_exposed(server):
            out.warn(f"{server} is not encrypted; everybody on the way can read code and token.")
        with open_api(server, None, out.warn) as api:
            joined = use(api, (code or _ask()).strip(), name)
        expiry = f" The token expires {ago(joined.expires_at)}." if joined.expires_at else ""
        where = f" of {', '.join(joined.models)}" if joined.models else ""
        out.result(
            {"server": server, **joined.model_dump(mode="json", exclude={"token"})},
            f"Joined {server} as {clean(joined.name)} ({clean(joined.role + where)}).{expiry}",
        )


def _ask() -> str:
    if sys.stdin.isatty():
        answer: str = typer.prompt("Code", hide_input=True, err=True)
        return answer
    return sys.stdin.readline()
