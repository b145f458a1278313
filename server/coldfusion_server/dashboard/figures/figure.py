"""What every figure is: a table of named columns, and perhaps a drawing of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Column:
    """
    A column of a figure's table.

    Attributes:
        name: a key for programs, such as ``standard_error``.
        told: what it holds, and its unit, in a few words.
    """

    name: str
    told: str


@dataclass(frozen=True)
class Figure:
    """
    What one drawing shows, exactly.

    Attributes:
        name: part of its address, such as ``norms``.
        title: a heading.
        told: what it shows in a sentence or two, as a screen reader gets it.
        columns: of the table.
        rows: a cell for each column; null: not known.
        svg: the drawing as it is put into a page, one ``svg`` element that can stand alone; empty:
            there is nothing to draw.
    """

    name: str
    title: str
    told: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    svg: str = ""
