"""JSON Lines: one object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coldfusion_shared.data.formats import formats
from coldfusion_shared.data.table import Table, read_text
from coldfusion_shared.errors import BadData


@formats.register(".jsonl")
def read_jsonl(path: Path) -> Table:
    """Read one object a line; a key that an object lacks counts as null."""
    # Not splitlines: a JSON text may hold other characters that it takes for line ends.
    lines = enumerate(read_text(path).split("\n"), start=1)
    rows = [(number, _object(path, number, line)) for number, line in lines if line.strip()]
    names = dict.fromkeys(name for _, row in rows for name in row)
    columns = {name: [row.get(name) for _, row in rows] for name in names}
    return Table(str(path), columns, [number for number, _ in rows])


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadData(
            f"{path}, line {number}: not valid JSON ({error}).",
            hint="Each line must be one complete JSON object.",
        ) from error
    if not isinstance(row, dict):
        raise BadData(
            f"{path}, line {number}: expected a JSON object, found {type(row).__name__}.",
            hint='Each line must look like {"text": "...", "label": "..."}.',
        )
    return row
