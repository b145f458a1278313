"""``doctor``: whether this machine is ready to contribute."""

from __future__ import annotations

import typer

from coldfusion_client.cli.errors import UNEXPECTED
from coldfusion_client.cli.options import AsJson, Quiet, Server
from coldfusion_client.cli.output import Output
from coldfusion_client.cli.session import reported
from coldfusion_client.cli.text import clean


def doctor(server: Server = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Look at server, token, proxy, clock, cache and torch. Ends with 1 if something is wrong."""
    out = Output(as_json=as_json, quiet=quiet)
    with reported(out):
        from coldfusion_client.checkup import Verdict, check_up

        found = list(check_up(server))
        good = all(one.verdict != Verdict.FAILED for one in found)
        lines = []
        for one in found:
            lines.append(f"{one.verdict:<6} " + clean(f"{one.check}: {one.message}"))
            lines += [f"       {clean(one.hint)}"] if one.hint else []
        failed = [clean(f"{one.check}: {one.message}") for one in found if one.verdict == "failed"]
        data = {"ok": good, "checks": [one.as_json() for one in found]}
        out.result(data, "\n".join(lines), "\n".join(failed) or None)
    if not good:
        raise typer.Exit(UNEXPECTED)
