"""`coldfusion-server model`: move a model's head, and see how it was moved."""

from __future__ import annotations

from typing import Annotated

import typer

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json, opened
from coldfusion_server.cli.output import show, table

Name = Annotated[str, typer.Argument(metavar="MODEL", help="owner/name")]


def rollback(
    name: Name,
    version: Annotated[str, typer.Argument(help="The base to go to, such as v3.")],
    reason: Annotated[str, typer.Option(help="Why; everybody can read it.")],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """
    Make an older base the newest one again; or go forward again, in the same way.

    Nothing is deleted. A round that is under way is cancelled. What waits is taken as late, or
    refused, as the model's policy says (after_rollback, max_staleness).
    """
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.cli.requests import base_version, checked
    from coldfusion_server.services.rollback import roll_back
    from coldfusion_shared.schemas.models import RollbackRequest

    wanted = checked(RollbackRequest, version=base_version(version), reason=reason)
    with opened(data_dir, database_url) as context:
        done = roll_back(context, name, wanted, OPERATOR)
    show(done.model_dump(mode="json"), as_json, done.sentence)


def heads(
    name: Name, data_dir: DataDir = None, database_url: DatabaseUrl = None, as_json: Json = False
) -> None:
    """List how a model's head was moved, newest first: published, rolled back, replayed."""
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.services.head_moves import list_moves
    from coldfusion_server.services.paging import MAX_LIMIT, Window

    with opened(data_dir, database_url) as context:
        moves = list_moves(context, name, OPERATOR, Window(limit=MAX_LIMIT)).items
    rows = [
        (f"{m.at:%Y-%m-%d %H:%M}", m.kind, m.before or "-", m.after, m.by or "-", m.reason or "")
        for m in moves
    ]
    head = ("AT", "KIND", "FROM", "TO", "BY", "REASON")
    text = table(head, rows) if rows else f"The head of {name} has never moved."
    show([move.model_dump(mode="json") for move in moves], as_json, text)
