"""
What the commands print: tables for people, JSON for programs, one sentence for errors.

Parts of it are others' words; none of them acts upon the operator's terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import typer

from coldfusion_shared.errors import ColdFusionError
from coldfusion_shared.letters import clean, harmless


def show(data: Any, as_json: bool, text: str) -> None:
    """Print `data` as JSON, or `text` for a person."""
    typer.echo(json.dumps(data, indent=2, default=str) if as_json else harmless(text))


def tell(text: str) -> None:
    """Print a sentence beside the result, for a person."""
    typer.echo(clean(text), err=True)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return columns of text, as wide as they need to be."""
    cells = [[clean(str(cell)) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def fields(data: Mapping[str, Any], path: str = "") -> list[tuple[str, object]]:
    """Return the rows of a table that shows `data`: what is nested by dotted names."""
    rows: list[tuple[str, object]] = []
    for name, value in data.items():
        if isinstance(value, Mapping) and value:
            rows += fields(value, f"{path}{name}.")
        else:
            rows.append((f"{path}{name}", "-" if value in (None, {}, []) else value))
    return rows


def fail(error: ColdFusionError) -> NoReturn:
    """Print what is wrong and what to do, as JSON where the command was asked for it, and leave."""
    if "--json" in sys.argv:
        problem = {"code": error.code, "detail": error.message, "hint": error.hint}
        typer.echo(json.dumps({"error": problem}))
    typer.secho(f"Error: {clean(error.message)}", err=True, fg=typer.colors.RED)
    if error.hint:
        typer.echo(clean(error.hint), err=True)
    sys.exit(1)
