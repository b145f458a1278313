"""Why something of ours failed, as everybody may read it."""

from __future__ import annotations

import re

# The folders of an absolute path: what it ends with says what it is about. URLs have none.
_FOLDERS = re.compile(r"(?<![\w.])(?<!:/)(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\:'\"]+[/\\])+")
# Letters of a reason that are told.
MOST = 500


def readable(text: str) -> str:
    """Return `text` as visitors may read it: one line, without folders of this machine."""
    # PostgreSQL keeps no NUL in a text.
    line = " ".join(_FOLDERS.sub("", text).replace("\0", " ").split())
    return line if len(line) <= MOST else f"{line[:MOST]}..."


def internal(error: Exception) -> str:
    """Return what is told of a fault of ours: its first line; the log has all of it."""
    first = next(iter(str(error).strip().splitlines()), "")
    said = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return readable(f"An internal error: {said}")
