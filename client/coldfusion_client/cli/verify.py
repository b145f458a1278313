"""``verify``: whether a pulled folder is what its Repository has signed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coldfusion_client.cli.options import AsJson, Key, Quiet, Server
from coldfusion_client.cli.output import Output
from coldfusion_client.cli.session import reported
from coldfusion_client.cli.text import clean


def verify(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What a pull has written.")],
    key: Key = None,
    server: Server = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """
    Check a pulled folder against its signature, without a server.

    Every file is read: none may be changed, missing, or there without having been signed.
    """
    out = Output(as_json=as_json, quiet=quiet)
    with reported(out):
        from coldfusion_client.verifying import verify as check

        found = check(folder, key, server)
        what = f"{found.model} {found.version}"
        whose = "the given key" if found.server is None else f"the key of {found.server},"
        said = f"{folder} is {what}: {found.files} files, signed with {whose} {found.key}."
        out.result(found.as_json(), clean(said), clean(what))
