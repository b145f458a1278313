"""
The cosines between updates as a heat map: each pair once, and each update with the mean. Pure.

Blue pulls the opposite way, orange the same way, and the stronger, the fuller: two colours that
colour-blind readers tell apart. What pulls the opposite way has a minus besides, so that the map
reads without any colour, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

from coldfusion_server.dashboard import svg
from coldfusion_server.dashboard.formats import MINUS, score

LEFT, TOP, RIGHT = 116.0, 6.0, 8.0
NAME_COLUMNS = 10
# Rows are as high as a line of text; cells are no wider than this, and have their number in them
# where they are at least so wide.
ROW, HIGHEST, WIDEST, NUMBERED = 15.0, 28.0, 44.0, 33.0
GAP = 8.0
# What is weaker than this has no minus: it is next to nothing.
WEAK = 0.05
# The darkest cell lets the number in it be read, and the faintest one is seen.
DARKEST, FAINTEST = 0.85, 0.04
LEGEND = (-1.0, -0.5, -0.1, 0.0, 0.1, 0.5, 1.0)

Cosine = float | None


@dataclass(frozen=True)
class _Cell:
    """A cell; `told` is whose it is, escaped, and empty in the legend."""

    x: float
    y: float
    wide: float
    high: float
    cosine: Cosine
    told: str


def draw(
    names: Sequence[str],
    cosines: Sequence[Sequence[Cosine]],
    with_mean: Sequence[Cosine],
    title: str,
) -> str:
    """
    Return the drawing.

    Args:
        names: of the updates, at least two.
        cosines: between them, (K, K) and symmetric; null: one of the two is zero.
        with_mean: of each with the mean of all, (K,).
        title: what it shows, in words.
    """
    wide = min(WIDEST, (svg.WIDTH - LEFT - RIGHT) / len(names))
    high = max(ROW, min(wide, HIGHEST))
    bottom = TOP + high * (len(names) + 1) + GAP
    legend = [
        _Cell(LEFT + 38.0 * place, bottom + 32, 38.0, ROW, cosine, "")
        for place, cosine in enumerate(LEGEND)
    ]
    cells = [*_cells(names, cosines, with_mean, wide, high), *legend]
    return svg.picture(
        bottom + 56.0,
        title,
        [
            *_names(names, high),
            *_coloured(cells),
            *_minuses(cells),
            *_told(cells),
            *_columns(len(names), wide, bottom),
            svg.text(LEFT - 6, bottom + 43, "opposite", anchor="end"),
            svg.text(LEFT + 38.0 * len(LEGEND) + 4, bottom + 43, "alike"),
        ],
    )


def _names(names: Sequence[str], high: float) -> Iterator[str]:
    for row, name in enumerate(names):
        said = f"{svg.name(name, NAME_COLUMNS)} \N{MIDDLE DOT} {row + 1}"
        y = TOP + high * (row + 0.5) + 4
        yield svg.text(LEFT - 6, y, said, anchor="end", colour=svg.INK)
    y = TOP + GAP + high * (len(names) + 0.5) + 4
    yield svg.text(LEFT - 6, y, "their mean", anchor="end")


def _cells(
    names: Sequence[str],
    cosines: Sequence[Sequence[Cosine]],
    with_mean: Sequence[Cosine],
    wide: float,
    high: float,
) -> Iterator[_Cell]:
    """Yield each pair once, and below them each with the mean."""
    escaped = [svg.words(name) for name in names]
    for row, name in enumerate(escaped):
        for column, other in enumerate(escaped[:row]):
            x, y = LEFT + wide * column, TOP + high * row
            yield _Cell(x, y, wide, high, cosines[row][column], f"{name} and {other}")
    y = TOP + GAP + high * len(names)
    for column, (name, cosine) in enumerate(zip(escaped, with_mean, strict=True)):
        yield _Cell(LEFT + wide * column, y, wide, high, cosine, f"{name} and the mean")


def _coloured(cells: Sequence[_Cell]) -> Iterator[str]:
    """Yield the cells, those of one colour together: there may be a thousand."""
    kinds = (
        (f'fill="{svg.SECOND}"', [cell for cell in cells if (cell.cosine or 0) > 0]),
        (f'fill="{svg.ACCENT}"', [cell for cell in cells if cell.cosine is not None
                                  and cell.cosine <= 0]),
        (f'fill="none" stroke="{svg.RULE}"', [cell for cell in cells if cell.cosine is None]),
    )  # fmt: skip
    for kind, found in kinds:
        yield f"<g {kind}>{''.join(map(_drawn, found))}</g>" if found else ""


def _drawn(cell: _Cell) -> str:
    # Updates of different tasks are all but at right angles: the root tells small ones apart.
    strength = DARKEST * sqrt(abs(cell.cosine or 0.0))
    number = "not known" if cell.cosine is None else score(cell.cosine)
    wide, high = svg.number(cell.wide - 1), svg.number(cell.high - 1)
    title = f"<title>{cell.told}: {number}</title>" if cell.told else ""
    return (
        f'<path d="M{svg.number(cell.x)} {svg.number(cell.y)}h{wide}v{high}h-{wide}z" '
        f'fill-opacity="{max(FAINTEST, strength):.2f}">{title}</path>'
    )


def _minuses(cells: Sequence[_Cell]) -> Iterator[str]:
    """Yield one path of all minuses: what has its number in it needs none."""
    places = [
        f"M{svg.number(cell.x + (cell.wide - 1) / 2 - length / 2)} "
        f"{svg.number(cell.y + (cell.high - 1) / 2)}h{length:g}"
        for cell in cells
        if cell.wide < NUMBERED and cell.cosine is not None and cell.cosine <= -WEAK
        for length in [min(6.0, round(cell.wide - 3, 1))]
    ]
    if places:
        yield (
            f'<path d="{"".join(places)}" stroke="{svg.INK}" stroke-width="1.5" '
            'pointer-events="none"/>'
        )


def _told(cells: Sequence[_Cell]) -> Iterator[str]:
    for cell in cells:
        if cell.wide >= NUMBERED and cell.cosine is not None:
            x, y = cell.x + (cell.wide - 1) / 2, cell.y + (cell.high - 1) / 2 + 4
            number = score(cell.cosine) if cell.told else f"{cell.cosine:g}".replace("-", MINUS)
            yield svg.text(x, y, number, anchor="middle", colour=svg.INK, halo=True)


def _columns(count: int, wide: float, bottom: float) -> Iterator[str]:
    """Yield the columns' numbers, as many as have room."""
    every = next(step for step in (1, 2, 5, 10) if step * wide >= 16 or step == 10)
    for column in range(0, count, every):
        x = LEFT + wide * (column + 0.5)
        yield svg.text(x, bottom + 14, str(column + 1), anchor="middle")
