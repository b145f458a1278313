"""Texts of others in a terminal, which they must not command, and where room is scarce."""

from __future__ import annotations

import unicodedata

# Control and format characters (colours, cursor moves, right-to-left overrides), surrogates.
_HOSTILE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def clean(text: str) -> str:
    """Return `text`, which somebody else wrote, as one line that a terminal only shows."""
    return harmless(" ".join(text.split()))


def harmless(text: str) -> str:
    """Return `text`, lines and tabs in which are ours, without what a terminal acts upon."""
    return "".join(
        char for char in text if char in "\n\t" or unicodedata.category(char) not in _HOSTILE
    )


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(map(_width, text))


def wrapped(text: str, columns: int, lines: int) -> str:
    """
    Return a text in so many lines at most, none wider than `columns`; what is over is cut.

    Letters that cannot be printed, of which an SVG cannot be made, become spaces.
    """
    found: list[str] = []
    rest = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    while rest and len(found) < lines:
        line = _fitting(rest, columns)
        found.append(line.rstrip())
        rest = rest[len(line) :].lstrip()
    if rest:
        found[-1] = _cut(found[-1], columns - 1) + "…"
    return "\n".join(found)


def _fitting(text: str, columns: int) -> str:
    """Return the beginning of `text` that fits a line, to the end of a word if there is one."""
    line = _cut(text, columns) or text[0]
    if len(line) == len(text) or text[len(line)].isspace():
        return line
    ends = max(line.rfind(mark) for mark in " -_/.")
    return line if ends < 1 else line[: ends + 1]


def _cut(text: str, columns: int) -> str:
    taken = 0
    for index, letter in enumerate(text):
        taken += _width(letter)
        if taken > columns:
            return text[:index]
    return text


def _width(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
