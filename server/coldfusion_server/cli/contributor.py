"""`coldfusion-server contributor`: who there is, whom to keep out, and whose account is whose."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json, opened
from coldfusion_server.cli.output import show, table

if TYPE_CHECKING:
    from coldfusion_server.services.blocking import Blocked

app = typer.Typer(no_args_is_help=True, help="List contributors, keep some out, join accounts.")

Name = Annotated[str, typer.Argument(help="The contributor's name.")]

# So many of what waits are shown to a person; --json has all.
SHOWN = 50


@app.command("list")
def list_contributors(
    blocked: Annotated[
        bool, typer.Option("--blocked", help="Only those who are kept out.")
    ] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """List contributors by name, and who of them is kept out since when, and why."""
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services.blocking import list_people

    with opened(data_dir, database_url) as context:
        found = list_people(context, OPERATOR, only_blocked=blocked)
    rows = [
        (
            one.name,
            f"{one.created_at:%Y-%m-%d}",
            f"{one.blocked_at:%Y-%m-%d %H:%M}" if one.blocked_at else "-",
            one.reason or "-",
        )
        for one in found
    ]
    empty = "Nobody is blocked." if blocked else "There is no contributor yet."
    text = table(("NAME", "SINCE", "BLOCKED", "REASON"), rows) if rows else empty
    show([asdict(one) for one in found], as_json, text)


@app.command()
def block(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; for operators, and the audit log.")],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """
    Keep a contributor out until they are unblocked.

    Their tokens and browser sessions are refused at once, as are sign-ins and all invitations in
    their name or made by them; open event streams end within some seconds. What they have
    contributed stays until somebody decides on it: what may still be fused is listed. So are the
    webhooks that they have made, which go on sending.
    """
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.cli.requests import checked
    from coldfusion_server.services import blocking
    from coldfusion_shared.schemas.contributors import Block

    wanted = checked(Block, reason=reason)
    with opened(data_dir, database_url) as context:
        done = blocking.block(context, name, wanted, OPERATOR)
    show(asdict(done), as_json, f"{_of_block(done)}\n{_of_work(done)}")


@app.command()
def unblock(
    name: Name,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """
    Let a contributor in again.

    Tokens of theirs that have neither expired nor been revoked are good again, and so are open
    invitations. Where one may be in wrong hands, revoke them all before: token revoke NAME.
    """
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services import blocking

    with opened(data_dir, database_url) as context:
        done = blocking.unblock(context, name, OPERATOR)
    show(asdict(done), as_json, _of_unblock(done))


@app.command("join-account")
def join_account(
    name: Annotated[str, typer.Argument(help="Who the account signs in as from now on.")],
    signed_in_as: Annotated[
        str, typer.Option("--signed-in-as", help="Who it has signed in as so far.")
    ],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """
    Let somebody's account at the sign-in provider be the contributor who they were before.

    Make sure that both are the same person: let them sign in, and tell you the name that they got,
    such as alice-2. What they have signed in for so far ends. What was contributed as alice-2 stays
    alice-2's.
    """
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services.accounts import join_accounts

    with opened(data_dir, database_url) as context:
        ended = join_accounts(context, name, signed_in_as, OPERATOR)
    text = (
        f"Who signed in as {signed_in_as} is {name} with the next sign-in. Tokens and sessions "
        f"that ended: {ended}."
    )
    show({"name": name, "signed_in_as": signed_in_as, "ended": ended}, as_json, text)


def _of_block(done: Blocked) -> str:
    person = done.person
    if not done.changed:
        return (
            f"{person.name} was blocked before, at {person.blocked_at:%Y-%m-%d %H:%M} UTC: "
            f"{person.reason}"
        )
    return (
        f"{person.name} is blocked. Tokens and sessions that are refused from now on: "
        f"{done.tokens}."
    )


def _of_unblock(done: Blocked) -> str:
    if not done.changed:
        return f"{done.person.name} is not blocked."
    return (
        f"{done.person.name} is not blocked any more. Tokens and sessions that are good again: "
        f"{done.tokens}."
    )


def _of_work(done: Blocked) -> str:
    """Tell what the contributor's work is in, or will be, and what can be done about it."""
    lines = []
    if done.waiting:
        rows = [(one.id, one.model, one.round, one.state) for one in done.waiting[:SHOWN]]
        lines += [
            f"What may still be fused: {len(done.waiting)}. It stays until somebody decides:",
            table(("CONTRIBUTION", "MODEL", "ROUND", "STATE"), rows),
        ]
        if len(done.waiting) > SHOWN:
            lines.append(f"... and {len(done.waiting) - SHOWN} more; --json shows all.")
        lines += [
            "To take one out: coldfusion-server contribution remove CONTRIBUTION --reason TEXT",
            "To reject one in quarantine: "
            "coldfusion-server contribution reject CONTRIBUTION --reason TEXT",
        ]
    else:
        lines.append("Nothing of theirs waits to be fused.")
    if done.published:
        lines.append(
            f"In published bases: {done.published}. Those stay; to fuse again without them: "
            "coldfusion-server model replay --help"
        )
    if done.webhooks:
        hooks = [(one.id, one.model or "all public ones", one.origin) for one in done.webhooks]
        lines += [
            f"Webhooks that they have made: {len(hooks)}. They go on, to wherever that is:",
            table(("WEBHOOK", "MODEL", "SERVER"), hooks),
            "To end one: coldfusion-server webhook delete WEBHOOK",
        ]
    return "\n".join(lines)
