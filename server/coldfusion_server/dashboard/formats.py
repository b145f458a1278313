"""Sizes, durations and scores as a person reads them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from coldfusion_server.dashboard.values import Value

UNITS = ("kB", "MB", "GB", "TB")
MINUS = "\N{MINUS SIGN}"
# XML 1.0 cannot hold the first ones; the last ones turn the words around that follow.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)
_VERSION = re.compile(r"v\d+\b")
# What Markdown would take for markup, in a line or in a table's cell.
_MARKUP = re.compile(r"[\\`*_~\[\]|!#$:@]|(?<=\bwww)\.", re.IGNORECASE)


def size(count: int) -> str:
    """Return a number of bytes with a unit: ``90.9 MB``, decimal as disks and networks count."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in UNITS:
        value /= 1000
        if value < 999.5 or unit == UNITS[-1]:
            break
    return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"


def duration(length: timedelta) -> str:
    """Return a length of time in its two largest units: ``2 h 5 min``."""
    seconds = max(0, round(length.total_seconds()))
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next((index for index, (value, _) in enumerate(parts) if value), len(parts) - 1)
    return " ".join(f"{value} {unit}" for value, unit in parts[first : first + 2] if value) or "0 s"


def score(value: float) -> str:
    """Return a score with two decimals."""
    return f"{value:.2f}".replace("-", MINUS)


def change(value: float) -> str:
    """Return a difference of scores, always with its sign."""
    text = f"{value:+.2f}"
    return "±0.00" if text in ("+0.00", "-0.00") else text.replace("-", MINUS)


def value(found: Value) -> str:
    """Return a score with its error: ``84.20 ± 0.90``."""
    return score(found.score) + error(found)


def gain(found: Value) -> str:
    """Return a difference with its error: ``+2.10 ± 0.90``."""
    return change(found.score) + error(found)


def error(found: Value) -> str:
    """Return a standard error as it follows its score; nothing where none is known."""
    return "" if found.error is None else f" ± {score(found.error)}"


def without_controls(text: str) -> str:
    """Return `text` with a mark in the place of what cannot be shown."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def printable(text: str) -> str:
    """Return `text` on one line, without what cannot be shown."""
    return " ".join(without_controls(text).split())


def markdown(text: str) -> str:
    """Return `text` as what reads the same in Markdown, in a table, too: no markup, no HTML."""
    plain = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(lambda found: "\\" + found[0], plain)


def count(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 contribution``, ``1,204 contributions``."""
    return f"{number:,} {noun}{'s'[: number != 1]}"


def percent(done: int, total: int) -> int:
    """Return how much of `total` is done, in whole percent; 100 only when it is all."""
    return min(100, 100 * done // total) if total else 0


def utc(moment: datetime) -> str:
    """Return a time as it reads without JavaScript."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def iso(moment: datetime) -> str:
    """Return a time for `<time datetime>`."""
    return moment.isoformat(timespec="seconds")


def capitalize_first(text: str) -> str:
    """Return a sentence with a capital at its start; names, a version at the start too, stay."""
    return text if _VERSION.match(text) else text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    """Return a reason as a sentence of its own: others may follow it."""
    return capitalize_first(text) + ("" if text.endswith((".", "!", "?")) else ".")
