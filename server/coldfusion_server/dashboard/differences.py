"""Differences of scores as bars to both sides of nothing, with their errors. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from coldfusion_server.dashboard import charts, svg
from coldfusion_server.dashboard.charts import Bar, BarChart
from coldfusion_server.dashboard.formats import gain
from coldfusion_server.dashboard.values import Value


def draw(names: Sequence[str], values: Sequence[Value], title: str) -> str:
    """Return the drawing of differences in points, at least one; the first is over all others."""
    chart = charts.bar_chart(names, values, 1)
    return svg.picture(chart.height, title, [*_axis(chart), *map(_bar, chart.bars)])


def _axis(chart: BarChart) -> Iterator[str]:
    for tick in chart.ticks:
        yield svg.upright(tick.at, chart.top, chart.bottom)
        yield svg.text(tick.at, chart.top - 8, tick.text, anchor="middle")
    yield svg.upright(chart.zero, chart.top, chart.bottom, svg.MUTED)


def _bar(bar: Bar) -> str:
    middle = bar.y + charts.BAR_HEIGHT / 2
    whisker = (
        f'<path d="M{bar.low} {middle - 4}v8M{bar.low} {middle}H{bar.high}M{bar.high} '
        f'{middle - 4}v8" fill="none" stroke="{svg.INK}" stroke-width="1.25"/>'
    )
    return (
        f"<g><title>{svg.words(bar.name)}: {gain(bar.value)} points</title>"
        + svg.text(charts.BAR_PAD, bar.text, svg.words(bar.short), colour=svg.INK, halo=True)
        + svg.text(svg.WIDTH - charts.BAR_PAD, bar.text, gain(bar.value), anchor="end", halo=True)
        + f'<rect x="{bar.x}" y="{bar.y}" width="{bar.width}" height="{charts.BAR_HEIGHT}" rx="2" '
        f'fill="{svg.ACCENT if bar.value.score >= 0 else svg.SECOND}" fill-opacity="0.72"/>'
        + ("" if bar.value.error is None else whisker)
        + "</g>"
    )
