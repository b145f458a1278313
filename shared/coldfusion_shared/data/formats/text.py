"""Plain text, one example a line, for tasks that learn from nothing but text."""

from __future__ import annotations

from pathlib import Path

from coldfusion_shared.data.formats import formats
from coldfusion_shared.data.table import Table, read_text


@formats.register(".txt")
def read_lines(path: Path) -> Table:
    """Read each line as the column "text"; empty lines are skipped."""
    lines = [
        (number, line.strip()) for number, line in enumerate(read_text(path).split("\n"), start=1)
    ]
    said = [(number, line) for number, line in lines if line]
    return Table(str(path), {"text": [line for _, line in said]}, [number for number, _ in said])
