"""Values below each other, or on one line, to see which stands out. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from coldfusion_server.dashboard import svg
from coldfusion_server.dashboard.formats import MINUS, score

LEFT, RIGHT, TOP, BOTTOM = 116.0, 64.0, 24.0, 8.0
# Behind a bar stands a factor, too.
BARS_RIGHT = 104.0
NAME_COLUMNS = 15
ROW = 17.0
MOST_TICKS = 6
STRIP_HEIGHT, STRIP_PAD = 56.0, 16.0
COURSE_HEIGHT, COURSE_LEFT = 120.0, 40.0


@dataclass(frozen=True)
class Item:
    """
    One value of a drawing.

    Attributes:
        name: whose it is; of others.
        value: where it is drawn; not negative.
        text: the value as it is told.
        told: all of it in words, when pointed at; of others.
        stands_out: whether it has the other mark.
    """

    name: str
    value: float
    text: str
    told: str
    stands_out: bool = False


def on_logs(items: Sequence[Item], usual: tuple[float, float] | None, title: str) -> str:
    """
    Return values, at least one, below each other on a logarithmic scale around 1.

    Args:
        items: the values; what is 0 stands at the left end.
        usual: between what values is usual; null: nobody can say.
        title: what it shows, in words.
    """
    low, high = _log_ends([*(item.value for item in items), *(usual or ())])
    width = math.log10(high) - math.log10(low)
    bottom = TOP + ROW * len(items)

    def place(value: float) -> float:
        share = (math.log10(value) - math.log10(low)) / width if value > 0 else 0.0
        return LEFT + 8 + share * (svg.WIDTH - RIGHT - LEFT - 16)

    pieces = [] if usual is None else [_band(place(usual[0]), place(usual[1]), bottom, usual)]
    for at in _log_ticks(low, high):
        pieces.append(svg.upright(place(at), TOP, bottom, svg.MUTED if at == 1 else svg.RULE))
        pieces.append(svg.text(place(at), TOP - 8, f"{at:g}", anchor="middle"))
    for row, item in enumerate(items):
        y = TOP + ROW * (row + 0.5)
        mark = svg.diamond if item.stands_out else svg.dot
        pieces.append(_row(item, y, mark(place(item.value), y)))
    return svg.picture(bottom + BOTTOM, title, pieces)


def bars(items: Sequence[Item], title: str) -> str:
    """Return values, at least one, as bars from 0 below each other."""
    most = max(item.value for item in items) or 1.0
    pieces = []
    for row, item in enumerate(items):
        y = BOTTOM + ROW * (row + 0.5)
        wide = max(1.0, item.value / most * (svg.WIDTH - BARS_RIGHT - LEFT))
        colour = svg.SECOND if item.stands_out else svg.ACCENT
        bar = (
            f'<rect x="{svg.number(LEFT)}" y="{svg.number(y - 4.5)}" width="{svg.number(wide)}" '
            f'height="9" rx="2" fill="{colour}" fill-opacity="0.72"/>'
        )
        pieces.append(_row(item, y, bar))
    return svg.picture(ROW * len(items) + 2 * BOTTOM, title, pieces)


def strip(others: Sequence[float], own: float, title: str) -> str:
    """
    Return one value among others on a line, whose ends are those of all.

    Args:
        others: the other values; there may be none.
        own: the one that stands out.
        title: what it shows, in words.
    """
    low, high = min([own, *others]), max([own, *others])
    if high == low:
        low, high = low - 0.5, high + 0.5
    y, end = 28.0, svg.WIDTH - STRIP_PAD

    def place(value: float) -> float:
        return STRIP_PAD + (value - low) / (high - low) * (end - STRIP_PAD)

    pieces = [svg.across(STRIP_PAD, end, y)]
    pieces += [
        f'<path d="M{svg.number(place(one))} {y - 7:g}v14" stroke="{svg.ACCENT}" '
        f'stroke-width="2" stroke-opacity="0.6"><title>{score(one)}</title></path>'
        for one in others
    ]
    pieces.append(svg.diamond(place(own), y, 7.0))
    # Clear of both ends.
    x = min(max(place(own), 2 * STRIP_PAD), svg.WIDTH - 2 * STRIP_PAD)
    pieces.append(svg.text(x, 14, score(own), anchor="middle", colour=svg.INK, halo=True))
    pieces.append(svg.text(STRIP_PAD, 52, score(low)))
    pieces.append(svg.text(end, 52, score(high), anchor="end"))
    return svg.picture(STRIP_HEIGHT, title, pieces)


def course(values: Sequence[tuple[str, float]], title: str) -> str:
    """
    Return cosines one after the other, at least one, between the ends that there are.

    Args:
        values: what each is of, and the cosine.
        title: what it shows, in words.
    """
    left, right, top, bottom = COURSE_LEFT, svg.WIDTH - STRIP_PAD, 12.0, COURSE_HEIGHT - 12

    def place(index: int, cosine: float) -> tuple[float, float]:
        share = index / (len(values) - 1) if len(values) > 1 else 0.5
        return left + 8 + share * (right - left - 16), bottom - (cosine + 1) / 2 * (bottom - top)

    pieces = []
    for at in (-1.0, 0.0, 1.0):
        y = place(0, at)[1]
        pieces.append(svg.across(left, right, y, svg.RULE if at else svg.MUTED))
        pieces.append(svg.text(left - 6, y + 4, f"{at:g}".replace("-", MINUS), anchor="end"))
    points = [place(index, cosine) for index, (_, cosine) in enumerate(values)]
    line = "L".join(f"{svg.number(x)} {svg.number(y)}" for x, y in points)
    pieces.append(f'<path d="M{line}" fill="none" stroke="{svg.ACCENT}" stroke-width="1.5"/>')
    pieces += [
        f"<g><title>{svg.words(what)}: {score(cosine)}</title>{svg.dot(x, y)}</g>"
        for (x, y), (what, cosine) in zip(points, values, strict=True)
    ]
    return svg.picture(COURSE_HEIGHT, title, pieces)


def _row(item: Item, y: float, mark: str) -> str:
    return (
        f"<g><title>{svg.words(item.told)}</title>"
        f'<rect x="0" y="{svg.number(y - ROW / 2)}" width="{svg.number(svg.WIDTH)}" '
        f'height="{ROW:g}" fill="none" pointer-events="all"/>'
        + svg.text(LEFT - 6, y + 4, svg.name(item.name, NAME_COLUMNS), anchor="end", colour=svg.INK)
        + svg.text(svg.WIDTH - 4, y + 4, svg.words(item.text), anchor="end")
        + f"{mark}</g>"
    )


def _band(first: float, last: float, bottom: float, usual: tuple[float, float]) -> str:
    return (
        f'<rect x="{svg.number(first)}" y="{svg.number(TOP)}" '
        f'width="{svg.number(max(2.0, last - first))}" height="{svg.number(bottom - TOP)}" '
        f'fill="{svg.ACCENT}" fill-opacity="0.14"><title>usual: {usual[0]:.3g} to '
        f"{usual[1]:.3g}</title></rect>"
    )


def _log_ends(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis around 1 that holds all values."""
    known = [value for value in values if value > 0]
    return min([0.5, *known]), max([2.0, *known])


def _log_ticks(low: float, high: float) -> Iterator[float]:
    """Yield round numbers between the ends, few enough to stand beside each other; 1 is one."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    fine = [f * 10.0**power for power in range(first, last + 1) for f in (1, 2, 5)]
    found = [at for at in fine if low <= at <= high] if last - first <= MOST_TICKS else []
    if 0 < len(found) <= MOST_TICKS:
        yield from found
        return
    step = math.ceil((last - first) / (MOST_TICKS - 1))
    powers = [power for power in range(first, last + 1) if power % step == 0]
    yield from (10.0**power for power in powers if low <= 10.0**power <= high)
