"""Texts for a terminal: cleaned, measured, dated."""

from __future__ import annotations

from datetime import UTC, datetime

from coldfusion_shared.letters import clean as clean
from coldfusion_shared.letters import harmless as harmless


def typed(word: str) -> str:
    """Return a word of the command line as UTF-8 has it, in whatever locale Python read it."""
    return word.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def ago(moment: datetime, now: datetime | None = None) -> str:
    """Say how long ago something was, or in what time it will be."""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    span = _span(abs(seconds))
    return f"{span} ago" if seconds >= 0 else f"in {span}"


def _span(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(count: float) -> str:
    """Say a number of bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
