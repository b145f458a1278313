"""``login`` and ``logout``: a token for a server, kept for the owner's eyes only."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from coldfusion_client.cli.options import AsJson, Quiet
from coldfusion_client.cli.output import Output
from coldfusion_client.cli.session import reported
from coldfusion_client.cli.text import ago, clean
from coldfusion_shared.errors import InvalidRequest

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


Device = Annotated[
    bool,
    typer.Option(
        "--device",
        help="Sign in at the server's provider of identities, where it has one, by typing a short "
        "code into a browser on any device.",
    ),
]


def login(
    context: typer.Context,
    url: Url,
    token: Token = None,
    device: Device = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Keep a token for a server, which becomes the default one."""
    out = Output(as_json=as_json, quiet=quiet)
    with reported(out):
        from coldfusion_client import config
        from coldfusion_client.opening import open_api

        server = config.server_url(url)
        if config.is_exposed(server):
            out.warn(f"{server} is not encrypted; everybody on the way can read the token.")
        if device:
            _check_alone(context)
            _by_device(server, out)
            return
        token = (token or _ask()).strip()
        config.check_token(token)
        with open_api(server, token, out.warn) as api:
            me = api.whoami()
        file = config.credentials_file()
        credentials = config.load_credentials(file)
        credentials.remember(server, token)
        config.save_credentials(file, credentials)
        expiry = f" The token expires {ago(me.expires_at)}." if me.expires_at else ""
        where = f" of {', '.join(me.models)}" if me.models else ""
        out.result(
            {"server": server, **me.model_dump(mode="json")},
            f"Logged in to {server} as {clean(me.name)} ({clean(me.role + where)}).{expiry}",
        )


def _by_device(server: str, out: Output) -> None:
    from coldfusion_client.device import Prompt, sign_in
    from coldfusion_client.opening import open_api

    def show(prompt: Prompt) -> None:
        # Also with --quiet: without it nothing goes on.
        out.alert(f"Open {prompt.url} and type the code {prompt.code}")
        if prompt.whole_url is not None:
            out.say(f"Or open {prompt.whole_url} and compare the code.")
        out.say(f"Waiting for {prompt.minutes:.0f} minutes at most ...")

    with open_api(server, None, out.warn) as api:
        signed_in = sign_in(api, show)
    who = f"{clean(signed_in.name)} ({signed_in.role})"
    out.result(
        {"server": server, **signed_in.model_dump(mode="json", exclude={"token"})},
        f"Logged in to {server} as {who}. The token expires {ago(signed_in.expires_at)}.",
    )


def _check_alone(context: typer.Context) -> None:
    """Refuse a token beside --device; one of the environment is for other commands."""
    source = context.get_parameter_source("token")
    if source is not None and source.name == "COMMANDLINE":
        raise InvalidRequest(
            "--device signs you in without a token.", hint="Leave one of them out."
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
