"""Numbers to SVG geometry. Pure: what is drawn with it is the templates' business."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# The drawing's own units; CSS makes it as wide as its place.
WIDTH, HEIGHT = 440.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 24.0, 22.0, 26.0
# The first value's label stands over its point, clear of the axis.
INSET = 24.0
SPARK_WIDTH, SPARK_HEIGHT, SPARK_PAD = 120.0, 36.0, 4.0
MAX_LABELS = 12


@dataclass(frozen=True)
class Point:
    """One value, where it is drawn."""

    x: float
    y: float
    label: str
    value: float


@dataclass(frozen=True)
class Tick:
    """A grid line of the value axis."""

    y: float
    text: str


@dataclass(frozen=True)
class Line:
    """A line with a soft area under it."""

    points: list[Point]
    path: str
    area: str


@dataclass(frozen=True)
class Chart:
    """A line chart with its axes."""

    width: float
    height: float
    left: float
    right: float
    bottom: float
    ticks: list[Tick]
    labels: list[Point]
    line: Line


def line_chart(labels: Sequence[str], values: Sequence[float]) -> Chart:
    """Return a chart of `values`, at least one, in order."""
    low, high, step = _nice_range(min(values), max(values))
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    line = _line(labels, values, (LEFT + INSET, right), (bottom, TOP), (low, high))
    decimals = max(0, -math.floor(math.log10(step)))
    ticks = [
        Tick(_scale(low + i * step, (low, high), (bottom, TOP)), f"{low + i * step:.{decimals}f}")
        for i in range(round((high - low) / step) + 1)
    ]
    return Chart(WIDTH, HEIGHT, LEFT, right, bottom, ticks, _thinned(line.points), line)


def sparkline(values: Sequence[float]) -> Line:
    """Return a small line of `values`, at least one, without axes."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 1, high + 1
    x = (SPARK_PAD, SPARK_WIDTH - SPARK_PAD)
    y = (SPARK_HEIGHT - SPARK_PAD, SPARK_PAD)
    return _line([""] * len(values), values, x, y, (low, high))


def _line(
    labels: Sequence[str],
    values: Sequence[float],
    x: tuple[float, float],
    y: tuple[float, float],
    domain: tuple[float, float],
) -> Line:
    last = len(values) - 1
    points = [
        Point(
            # A single value stands in the middle.
            _scale(index, (0, last), x) if last else round(sum(x) / 2, 1),
            _scale(value, domain, y),
            label,
            value,
        )
        for index, (label, value) in enumerate(zip(labels, values, strict=True))
    ]
    path = " ".join(f"{'L' if i else 'M'}{p.x} {p.y}" for i, p in enumerate(points))
    area = f"{path} L{points[-1].x} {y[0]} L{points[0].x} {y[0]} Z"
    return Line(points, path, area)


def _scale(value: float, domain: tuple[float, float], place: tuple[float, float]) -> float:
    share = (value - domain[0]) / (domain[1] - domain[0])
    return round(place[0] + share * (place[1] - place[0]), 1)


def _nice_range(low: float, high: float) -> tuple[float, float, float]:
    """Return bounds and step of an axis with three to six round ticks around `low` to `high`."""
    # Half a point at least: noise must not look like a mountain.
    spread = max(high - low, 0.5)
    step: float = 10.0 ** math.floor(math.log10(spread))
    step *= next(f for f in (0.2, 0.5, 1, 2, 5) if spread / (step * f) <= 4.5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return first * step, max(last, first + 1) * step, step


def _thinned(points: list[Point]) -> list[Point]:
    """Return the points whose labels fit beside each other; the newest is always among them."""
    every = math.ceil(len(points) / MAX_LABELS)
    return points[::-1][::every][::-1]
