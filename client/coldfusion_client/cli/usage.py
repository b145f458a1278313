"""The command line as a whole: it always ends with a status, and says why in the form asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer

from coldfusion_client.cli.app import app
from coldfusion_client.cli.output import before_options
from coldfusion_shared.errors import InvalidRequest

NAME = "coldfusion-client"
# typer names the class of one usage error only; whose it is differs from version to version.
_UsageError: Any = typer.BadParameter.__mro__[1]


def run(words: Sequence[str]) -> int:
    """
    Run the command line that `words` are, and return its exit code.

    With ``--json`` among them a usage error is a document on standard output, too.
    """
    try:
        # Not `words`: on Windows, those of the system are expanded.
        status = app(prog_name=NAME, standalone_mode=False)
    except _UsageError as error:
        before_options(words).error_document(_as_ours(error), error.exit_code)
        error.show()
        return int(error.exit_code)
    except typer.Abort:
        sys.stderr.write("Aborted!\n")
        return 1
    return int(status or 0)


def _as_ours(error: Any) -> InvalidRequest:
    command = error.ctx.command_path if error.ctx else NAME
    return InvalidRequest(error.format_message(), hint=f"See {command} --help")
