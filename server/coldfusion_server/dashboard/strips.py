"""Where the marks of a time line stand: in rows, as words do on a page. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

WIDTH, PAD = 440.0, 12.0
# So many marks have room for letters under them; more are drawn closer.
ROOMY = 30


@dataclass(frozen=True)
class _Density:
    """How marks are drawn: so many in a row, how high that is, and how large they are."""

    marks: int
    height: float
    size: float


_WIDE, _CLOSE = _Density(10, 60.0, 7.0), _Density(24, 38.0, 5.5)
# From a row's top to its day's letters, to the marks' middles, and from there to their letters.
_DAY, _MIDDLE, _UNDER = 13.0, 28.0, 20.0


@dataclass(frozen=True)
class Place:
    """The middle of a mark."""

    x: float
    y: float


@dataclass(frozen=True)
class Row:
    """A line of marks: from where to where, and on what day it begins."""

    y: float
    start: float
    end: float
    day_y: float
    day: str


@dataclass(frozen=True)
class Strip:
    """
    The places of all marks.

    Attributes:
        width, height: of the drawing.
        size: half of a mark.
        under: from a mark's middle to its letters' baseline; null: there is no room for any.
        cell: from mark to mark.
        rows: from above.
        places: of the marks, in their order.
    """

    width: float
    height: float
    size: float
    under: float | None
    cell: float
    rows: list[Row]
    places: list[Place]


def strip(times: Sequence[datetime]) -> Strip:
    """Return the places of marks of `times`, which are in order; at least one."""
    density = _WIDE if len(times) <= ROOMY else _CLOSE
    cell = (WIDTH - 2 * PAD) / density.marks
    places = [
        Place(
            round(PAD + cell * (index % density.marks + 0.5), 1),
            density.height * (index // density.marks) + _MIDDLE,
        )
        for index in range(len(times))
    ]
    starts = range(0, len(times), density.marks)
    rows = [
        Row(
            places[start].y,
            places[start].x,
            places[min(start + density.marks, len(times)) - 1].x,
            places[start].y - _MIDDLE + _DAY,
            f"{times[start]:%Y-%m-%d}",
        )
        for start in starts
    ]
    return Strip(
        WIDTH,
        density.height * len(rows),
        density.size,
        _UNDER if density is _WIDE else None,
        cell,
        rows,
        places,
    )
