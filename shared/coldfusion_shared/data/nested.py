"""Lists and objects in the cells of a file that knows nothing but text."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from typing import Any

# Python takes texts side by side for one; it is how numpy writes several.
_SIDE_BY_SIDE = re.compile(r"""['"]\s+['"]""")


def nested(cells: Sequence[str]) -> Sequence[Any]:
    """
    Return the lists, or the objects, of a column in which every cell is written as one.

    Data frames write them as Python does, other programs as JSON. An empty cell is an empty list.
    A column with any other cell is a column of texts, and comes back as it is.
    """
    written = [cell.strip() for cell in cells]
    for begin, end in ("[]", "{}"):
        if any(written) and all(not c or (c[0] == begin and c[-1] == end) for c in written):
            read = [_read(cell) if cell else [] for cell in written]
            return cells if None in read else read
    return cells


def _read(cell: str) -> Any:
    """Return what a cell says; null if it is neither JSON nor Python."""
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        pass
    if _SIDE_BY_SIDE.search(cell):
        return None
    try:
        read = ast.literal_eval(cell)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return read if isinstance(read, list | dict) else None
