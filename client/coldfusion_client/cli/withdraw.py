"""``withdraw``: take a contribution back."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from coldfusion_client.cli.errors import INTERRUPTED
from coldfusion_client.cli.options import AsJson, Quiet, Server
from coldfusion_client.cli.session import Session, session
from coldfusion_client.cli.text import clean


def withdraw(
    contribution: Annotated[str, typer.Argument(metavar="ID", help="The contribution's id.")],
    erase: Annotated[
        bool, typer.Option("--erase", help="Have its stored files deleted at once, for good.")
    ] = False,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why, if you like; everybody can read it.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    server: Server = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """
    Take one of your contributions back.

    Before it is fused it simply goes. Bases that contain it stay as they are.
    """
    with session(server, as_json=as_json, quiet=quiet) as at:
        from coldfusion_shared.schemas.contributions import Withdrawal

        if not yes:
            _ask(at, contribution, erase=erase)
        done = at.api.withdraw(contribution, Withdrawal(reason=reason, erase=erase))
        at.out.result(done.model_dump(mode="json"), clean(done.sentence), "withdrawn")


def _ask(at: Session, identity: str, *, erase: bool) -> None:
    """Show what is to go and wait for a yes; raises `InvalidRequest` where nobody can answer."""
    from coldfusion_shared.errors import InvalidRequest

    found = at.api.contribution(identity)
    if not sys.stdin.isatty():
        raise InvalidRequest(
            "Nobody is here to be asked, and a withdrawal cannot be taken back.",
            hint="Add --yes if you are sure.",
        )
    what = f"{found.id} to {found.model}, from {found.base}, is {found.state}"
    what += f" in {found.result}, which stays as it is" if found.result else ""
    files = " and delete its stored files" if erase else ""
    # Not by typer, which writes a blank where only the result should be.
    sys.stderr.write(clean(f"{what}. Take it back{files}? [y/N]") + " ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        at.out.say("Nothing was changed.")
        raise typer.Exit(INTERRUPTED)
