"""What the dashboard draws, as data."""

from __future__ import annotations

from pydantic import Field

from coldfusion_shared.schemas.common import Response


class FigureColumn(Response):
    """A column of a figure's table."""

    name: str = Field(description="a key for programs", examples=["standard_error"])
    told: str = Field(description="what it holds, and its unit")


class FigureTable(Response):
    """What one drawing shows, exactly."""

    name: str = Field(description="part of its address", examples=["scores"])
    title: str
    told: str = Field(description="what it shows, in a sentence or two")
    columns: list[FigureColumn]
    rows: list[list[str | int | float | bool | None]] = Field(
        description="a cell for each column; null: not known"
    )
    next_cursor: str | None = Field(
        default=None,
        description="pass it as ?cursor= for the rest of a round's; null: there is no more",
    )
