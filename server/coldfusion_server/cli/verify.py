"""`coldfusion-server verify`: is a base what its manifest says, and was it made as it says?"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json, opened
from coldfusion_server.cli.output import show, table
from coldfusion_shared.errors import InvalidRequest

if TYPE_CHECKING:
    from coldfusion_server.services.verifying import Verified

UNSIGNED = "not signed; sign all bases with: coldfusion-server key --sign-again"


def verify(
    model: Annotated[str, typer.Argument(help="owner/name")],
    version: Annotated[
        str | None, typer.Argument(help="v<n> or latest, which is the default.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All bases, one after the other.")] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Check a base's signature, read all its files, fuse it again, and compare every byte.

    The exit code is 1 where anything is not as the manifest says; what it is, is named. What was
    erased cannot be fused again: that is told, and is no failure.
    """
    from coldfusion_server.cli.bars import byte_bar
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services import verifying
    from coldfusion_server.services.lookup import LATEST

    if every and version is not None:
        raise InvalidRequest(f"Either {version[:20]} or --all, not both.")
    wanted = None if every else version or LATEST
    with opened(data_dir, database_url) as context, byte_bar() as report:
        found = list(verifying.verify(context, model, wanted, OPERATOR, report))
    show([asdict(one) for one in found], as_json, _text(model, found))
    if any(one.faults for one in found):
        raise typer.Exit(1)


def _text(model: str, found: list[Verified]) -> str:
    from coldfusion_server.dashboard.formats import count, size

    rows = [
        (one.version, one.files, size(one.bytes), _fused(one), "wrong" if one.faults else "good")
        for one in found
    ]
    lines = [table(("BASE", "FILES", "SIZE", "FUSED AGAIN", "RESULT"), rows)]
    lines += [f"{one.version}: not fused again: {one.unfused}." for one in found if one.unfused]
    lines += [f"{one.version}: {UNSIGNED}" for one in found if not one.signed]
    lines += dict.fromkeys(fault for one in found for fault in one.faults)
    wrong = sum(bool(one.faults) for one in found)
    what = f"{count(len(found), 'base')} of {model}"
    lines.append(f"{wrong} of {what} are wrong." if wrong else f"All is well with {what}.")
    return "\n".join(lines)


def _fused(one: Verified) -> str:
    if one.fused:
        return "the same bytes"
    return "no" if one.unfused or one.faults else "-"
