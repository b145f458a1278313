"""`coldfusion-server doctor`: look for what is wrong, and say it."""

from __future__ import annotations

import typer

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json
from coldfusion_server.cli.output import show, table


def doctor(
    data_dir: DataDir = None, database_url: DatabaseUrl = None, as_json: Json = False
) -> None:
    """Check database, storage, disk and clock, and say what is wrong."""
    from coldfusion_server.services.context import open_context
    from coldfusion_server.services.health import examine
    from coldfusion_server.settings import load_settings

    context = open_context(load_settings(data_dir=data_dir, database_url=database_url))
    findings = examine(context)
    context.close()
    rows = [("ok" if f.ok else "WRONG", f.subject, f.message, f.hint or "") for f in findings]
    show([vars(f) for f in findings], as_json, table(("", "CHECK", "FINDING", "WHAT TO DO"), rows))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
