"""`coldfusion-server gc`: remove what nothing needs."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json, opened
from coldfusion_server.cli.output import show, table

if TYPE_CHECKING:
    from coldfusion_server.services.garbage import Collected, Heap

# Said of each damaged manifest.
SPARED = (
    "All that may be of its model stays. Put back a backup, with: coldfusion-server db restore; a "
    "candidate can be given up instead, by cancelling its round or discarding its replay."
)


def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go; change nothing.")
    ] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Remove objects, unfinished uploads, past sign-ins and old events that nothing needs any more.

    What a base or a round under way is made of stays, and contributions as long as their model's
    policy keeps them. Of the rest goes what was stored more than `gc_grace_hours` ago. It is safe
    beside a running server, which does the same every `gc_hours`. Where a manifest was damaged in
    the database, what may be of its model stays, and the exit code is 1.
    """
    from coldfusion_server.cli.bars import counting
    from coldfusion_server.services.garbage import collect

    holder = f"{socket.gethostname()}:{os.getpid()}"
    with opened(data_dir, database_url) as context, counting("listing") as count:
        found = collect(
            context, holder, dry_run=dry_run, progress=lambda listed: count(listed.size)
        )
    show(_data(found), as_json, _text(found))
    for sentence in found.damaged:
        typer.echo(f"{sentence} {SPARED}", err=True)
    if found.damaged:
        raise typer.Exit(1)


def _data(found: Collected) -> dict[str, Any]:
    return {
        "dry_run": found.dry_run,
        "garbage": {reason.value: asdict(heap) for reason, heap in found.garbage.items()},
        **{name: asdict(getattr(found, name)) for name in ("total", "young", "kept")},
        "uploads": found.uploads,
        "erased_contributions": found.erased,
        "sign_ins": found.sign_ins,
        "events": found.events,
        "deliveries": found.deliveries,
        "damaged": found.damaged,
    }


def _text(found: Collected) -> str:
    from coldfusion_server.dashboard.formats import count, size

    def said(heap: Heap) -> str:
        return f"{count(heap.objects, 'object')} ({size(heap.bytes)})"

    rows = [
        (reason.value, heap.objects, size(heap.bytes)) for reason, heap in found.garbage.items()
    ]
    went = f"{said(found.total)} and {count(found.uploads, 'unfinished upload')}"
    past = [
        count(number, what)
        for number, what in (
            (found.sign_ins, "past sign-in"),
            (found.events, "past event"),
            (found.deliveries, "past webhook message"),
        )
        if number
    ]
    if past:
        went += f", beside {', '.join(past)}"
    rest = f"{said(found.kept)} are needed, {said(found.young)} younger than the grace period."
    last = f"Removed {went}; {rest}"
    if found.dry_run:
        last = f"Nothing was changed. {went} would go; {rest}"
    return "\n".join([table(("WHY", "OBJECTS", "SIZE"), rows), last] if rows else [last])
