"""What the commands print: tables for people, JSON for programs, one sentence for errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import typer

from coldfusion_shared.errors import ColdFusionError


def show(data: Any, as_json: bool, text: str) -> None:
    """Print `data` as JSON, or `text` for a person."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str) if as_json else text)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return columns of text, as wide as they need to be."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def fail(error: ColdFusionError) -> NoReturn:
    """Print what is wrong and what to do, as JSON where the command was asked for it, and leave."""
    if "--json" in sys.argv:
        problem = {"code": error.code, "detail": error.message, "hint": error.hint}
        typer.echo(json.dumps({"error": problem}, ensure_ascii=False))
    typer.secho(f"Error: {error.message}", err=True, fg=typer.colors.RED)
    if error.hint:
        typer.echo(error.hint, err=True)
    sys.exit(1)
