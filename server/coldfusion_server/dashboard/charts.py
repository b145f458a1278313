"""Numbers to SVG geometry. Pure: what is drawn with it is the templates' business."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from coldfusion_server.dashboard.values import Value

# The drawing's own units; CSS makes it as wide as its place.
WIDTH, HEIGHT = 440.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 24.0, 22.0, 26.0
# What an axis may be labelled with in `LEFT`, and how much more each further letter takes.
LETTERS, LETTER = 4, 9.0
# The first value's label stands over its point, clear of the axis.
INSET = 24.0
SPARK_WIDTH, SPARK_HEIGHT, SPARK_PAD = 120.0, 36.0, 4.0
MAX_LABELS, MAX_LONG_LABELS = 12, 9
# Letters of a label that is not long.
SHORT = 3
# What an axis spans at least, in points: noise must not look like a mountain.
LEAST = 0.5
# Points of more bases would hide their line.
MANY = 30

# Bars: the name stands over its bar, so that both have the whole width, on a phone, too.
BAR_TOP, BAR_BOTTOM, BAR_PAD, BAR_INSET = 24.0, 6.0, 8.0, 12.0
ROW, NAME_BASELINE, BAR_OFFSET, BAR_HEIGHT = 36.0, 13.0, 19.0, 9.0
# Between averages and data sets.
GAP = 14.0
# Columns of a fixed-width font; wide characters take two.
NAME_COLUMNS = 28


@dataclass(frozen=True)
class Point:
    """One value, where it is drawn; `low` and `high` are one standard error away from it."""

    x: float
    y: float
    low: float
    high: float
    label: str
    value: Value


@dataclass(frozen=True)
class Tick:
    """A grid line of the value axis, at its height or, under bars, at its distance from left."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """
    A line over the bases, a soft area under it, and the band of its errors.

    Attributes:
        points: where there is a value.
        path: from each point to the next, with gaps where bases have no value.
        area: what is under the path.
        band: around the path, as far as the errors are known.
        alone: points with an error whose neighbours have none.
    """

    points: list[Point]
    path: str
    area: str
    band: str
    alone: list[Point]


@dataclass(frozen=True)
class Chart:
    """
    A line chart with its axes.

    Attributes:
        many: whether the points are too many to be drawn each.
        ticks: of the value axis.
        labels: the bases whose names fit beside each other, and where.
        lines: one for each of those given.
    """

    width: float
    height: float
    left: float
    right: float
    bottom: float
    many: bool
    ticks: list[Tick]
    labels: list[tuple[float, str]]
    lines: list[Line]


@dataclass(frozen=True)
class Bar:
    """
    A difference, from the zero line to its value.

    Attributes:
        name: whole, and `short` as far as it fits over the bar.
        text, y: baseline of the name, and top of the bar.
        x, width: the bar.
        low, high: the ends of its error bar; the bar's end where no error is known.
    """

    name: str
    short: str
    text: float
    y: float
    x: float
    width: float
    low: float
    high: float
    value: Value


@dataclass(frozen=True)
class BarChart:
    """Bars below each other, and the axis over them; `gap` is where the first ones end, or 0."""

    width: float
    height: float
    top: float
    bottom: float
    left: float
    right: float
    zero: float
    gap: float
    ticks: list[Tick]
    bars: list[Bar]


def line_chart(
    labels: Sequence[str], lines: Sequence[Sequence[Value | None]], least: float = LEAST
) -> Chart:
    """
    Return a chart over the bases.

    Args:
        labels: the bases, at least one, in order.
        lines: for each line one value for each base; null: it has none. There is at least one
            value in all.
        least: what the axis spans at least.
    """
    values = [value for line in lines for value in line if value is not None]
    domain, ticks = _axis(values, least=least)
    left = LEFT + LETTER * max(0, max(len(text) for _, text in ticks) - LETTERS)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    places = _places(len(labels), (left + INSET, right))
    drawn = [_line(labels, places, line, (bottom, TOP), domain) for line in lines]
    return Chart(
        WIDTH,
        HEIGHT,
        left,
        right,
        bottom,
        len(labels) > MANY,
        [Tick(_scale(at, domain, (bottom, TOP)), text) for at, text in ticks],
        _thinned(list(zip(places, labels, strict=True))),
        drawn,
    )


def bar_chart(names: Sequence[str], values: Sequence[Value], apart: int = 0) -> BarChart:
    """Return bars for differences, at least one; the first `apart` stand apart from the others."""
    domain, ticks = _axis([*values, Value(0.0)], most=6.5)
    left, right = BAR_PAD, WIDTH - BAR_PAD
    # Clear of the names at one end and of the values at the other.
    place = (left + BAR_INSET, right - BAR_INSET)
    gap = GAP if 0 < apart < len(names) else 0.0
    tops = [BAR_TOP + ROW * i + (gap if i >= apart else 0.0) for i in range(len(names))]
    zero = _scale(0.0, domain, place)
    return BarChart(
        WIDTH,
        tops[-1] + ROW + BAR_BOTTOM,
        BAR_TOP,
        tops[-1] + ROW,
        left,
        right,
        zero,
        tops[apart] - gap / 2 if gap else 0.0,
        [Tick(_scale(at, domain, place), text) for at, text in ticks],
        [
            _bar(name, value, top, zero, domain, place)
            for name, value, top in zip(names, values, tops, strict=True)
        ],
    )


def sparkline(values: Sequence[Value]) -> Line:
    """Return a small line of `values`, at least one, without axes."""
    low, high = min(value.score for value in values), max(value.score for value in values)
    if low == high:
        low, high = low - 1, high + 1
    places = _places(len(values), (SPARK_PAD, SPARK_WIDTH - SPARK_PAD))
    y = (SPARK_HEIGHT - SPARK_PAD, SPARK_PAD)
    plain = [Value(value.score) for value in values]
    return _line([""] * len(values), places, plain, y, (low, high))


def shortened(text: str, columns: int = NAME_COLUMNS) -> str:
    """Return as much of `text` as `columns` hold, with an ellipsis if that is not all."""
    if sum(map(_columns, text)) <= columns:
        return text
    left, end = columns - 1, 0
    while (left := left - _columns(text[end])) >= 0:
        end += 1
    return text[:end].rstrip() + "…"


def _line(
    labels: Sequence[str],
    places: Sequence[float],
    values: Sequence[Value | None],
    y: tuple[float, float],
    domain: tuple[float, float],
) -> Line:
    found = [
        None if value is None else _point(x, label, value, y, domain)
        for x, label, value in zip(places, labels, values, strict=True)
    ]
    runs = list(_runs(found))
    certain = list(
        _runs([p if p is not None and p.value.error is not None else None for p in found])
    )
    return Line(
        [point for run in runs for point in run],
        " ".join(_path([(p.x, p.y) for p in run]) for run in runs),
        " ".join(_around([(p.x, p.y) for p in run], [(p.x, y[0]) for p in run]) for run in runs),
        " ".join(
            _around([(p.x, p.high) for p in run], [(p.x, p.low) for p in run])
            for run in certain
            if len(run) > 1
        ),
        [run[0] for run in certain if len(run) == 1],
    )


def _point(
    x: float, label: str, value: Value, y: tuple[float, float], domain: tuple[float, float]
) -> Point:
    middle, low, high = (_scale(at, domain, y) for at in (value.score, value.low, value.high))
    return Point(x, middle, low, high, label, value)


def _bar(
    name: str,
    value: Value,
    top: float,
    zero: float,
    domain: tuple[float, float],
    place: tuple[float, float],
) -> Bar:
    end, low, high = (_scale(at, domain, place) for at in (value.score, value.low, value.high))
    return Bar(
        name,
        shortened(name),
        top + NAME_BASELINE,
        top + BAR_OFFSET,
        min(zero, end),
        # Also what is nothing has a place where it can be seen.
        max(round(abs(end - zero), 1), 1.0),
        low,
        high,
        value,
    )


def _runs(points: Sequence[Point | None]) -> Iterator[list[Point]]:
    """Yield the points without a gap between them."""
    run: list[Point] = []
    for point in [*points, None]:
        if point is not None:
            run.append(point)
        elif run:
            yield run
            run = []


def _path(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{'L' if i else 'M'}{x} {y}" for i, (x, y) in enumerate(places))


def _around(there: Sequence[tuple[float, float]], back: Sequence[tuple[float, float]]) -> str:
    return f"{_path([*there, *reversed(back)])} Z"


def _places(count: int, place: tuple[float, float]) -> list[float]:
    # A single value stands in the middle.
    if count == 1:
        return [round(sum(place) / 2, 1)]
    return [_scale(index, (0, count - 1), place) for index in range(count)]


def _scale(value: float, domain: tuple[float, float], place: tuple[float, float]) -> float:
    share = (value - domain[0]) / (domain[1] - domain[0])
    return round(place[0] + share * (place[1] - place[0]), 1)


def _axis(
    values: Sequence[Value], most: float = 4.5, least: float = LEAST
) -> tuple[tuple[float, float], list[tuple[float, str]]]:
    """Return the ends of an axis that holds `values` with their errors, and its ticks."""
    low, high, step = _nice_range(
        min(value.low for value in values), max(value.high for value in values), most, least
    )
    decimals = max(0, -math.floor(math.log10(step)))
    places = [low + i * step for i in range(round((high - low) / step) + 1)]
    return (low, high), [(at, _tick(at, decimals)) for at in places]


def _tick(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")
    return text if any(digit in "123456789" for digit in text) else "0"


def _nice_range(low: float, high: float, most: float, least: float) -> tuple[float, float, float]:
    """
    Return bounds and step of an axis with round ticks around `low` to `high`, `least` apart.

    There are at most two ticks more than `most`, which is how many steps the values may span.
    """
    spread = max(high - low, least)
    step: float = 10.0 ** math.floor(math.log10(spread))
    step *= next(f for f in (0.2, 0.5, 1, 2, 5) if spread / (step * f) <= most)
    first, last = math.floor(low / step), math.ceil(high / step)
    return first * step, max(last, first + 1) * step, step


def _thinned(labels: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Return the labels that fit beside each other; the newest is always among them."""
    long = max(len(label) for _, label in labels) > SHORT
    every = math.ceil(len(labels) / (MAX_LONG_LABELS if long else MAX_LABELS))
    return labels[::-1][::every][::-1]


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
