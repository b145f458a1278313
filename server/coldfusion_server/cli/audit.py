"""`coldfusion-server audit`: who decided what, and whether anybody has changed that record."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json, opened
from coldfusion_server.cli.output import show, table, tell

app = typer.Typer(no_args_is_help=True, help="See who decided what, and check that record.")


@app.command()
def verify(
    head: Annotated[
        str | None,
        typer.Option(help="What this command has printed before: finds an end that was cut off."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Check this file, which audit export has written.")
    ] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """
    Find entries that were changed, removed or put in; print the log's head.

    Note the head somewhere that whoever runs this server cannot change, and give it back with
    --head: only then is an end that was cut off, or a log that was written anew, found, too.
    """
    from coldfusion_server.events.chain import Head
    from coldfusion_server.services import auditing

    noted = None if head is None else Head.parse(head)
    if file is not None:
        found = auditing.verify_file(file, noted)
    else:
        with opened(data_dir, database_url) as context:
            found = auditing.verify(context, noted)
    # The head alone on standard output, so that a script can keep it.
    show({"entries": found.number, "head": str(found)}, as_json, str(found))
    if not as_json:
        tell(f"{found.number} entries, each as it was written. Their head is above: note it.")


@app.command("list")
def list_entries(
    model: Annotated[str | None, typer.Option(help="Only those of this model.")] = None,
    action: Annotated[
        str | None, typer.Option(help="Only those of this kind, such as model.policy.")
    ] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 50,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """List decisions, newest first."""
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services import auditing
    from coldfusion_server.services.paging import every

    with opened(data_dir, database_url) as context:
        pages = every(
            lambda window: auditing.list_entries(
                context, OPERATOR, window, model=model, action=action
            )
        )
        found = list(islice(pages, limit))
    head = ("ENTRY", "AT", "BY", "ACTION", "MODEL", "SUBJECT", "REASON")
    rows = [
        (
            one.number,
            f"{one.at[:10]} {one.at[11:16]}",
            one.by,
            one.action,
            one.model or "-",
            one.subject or "-",
            one.reason or "",
        )
        for one in found
    ]
    text = table(head, rows) if rows else "Nothing of that kind was decided yet."
    show([one.model_dump(mode="json") for one in found], as_json, text)


@app.command()
def export(data_dir: DataDir = None, database_url: DatabaseUrl = None) -> None:
    """Print the whole log, a line of JSON for each entry, the first one first."""
    from coldfusion_server.services import auditing

    with opened(data_dir, database_url) as context:
        for line in auditing.lines(context):
            typer.echo(line, nl=False)
