"""A comparison as people read it."""

from __future__ import annotations

from collections.abc import Sequence

from coldfusion_shared.evaluate.comparison import Comparison, Difference, Flips
from coldfusion_shared.evaluate.statistics import CONFIDENCE
from coldfusion_shared.letters import width


def comparison_text(found: Comparison, before: str, after: str) -> str:
    """Return a table of the data sets and, below it, what it means; `before`, `after`: names."""
    titles, rows = comparison_table(found, before, after)
    return f"{_columns([titles, *rows])}\n\n{verdict_text(found, before, after)}"


def comparison_table(
    found: Comparison, before: str, after: str
) -> tuple[list[str], list[list[str]]]:
    """Return the titles and the rows of the table: the data sets in their order, then averages."""
    titles = ["DATA SET", "METRIC", before, after, "DIFFERENCE", "NEGATIVE FLIPS", "POSITIVE FLIPS"]
    rows = [
        [data.name, data.metric, *_scores(data.scores), *_flips(data.flips)]
        for data in found.datasets
    ]
    rows.append(["average", "", *_scores(found.average), *_flips(found.flips)])
    for name, average in (("average, seen", found.seen), ("average, unseen", found.unseen)):
        if average is not None:
            rows.append([name, "", *_scores(average), *_flips(None)])
    return titles, rows


def verdict_text(found: Comparison, before: str, after: str) -> str:
    """Return a sentence or two: is `after` better than `before`, and how sure is that?"""
    average = found.average
    by = f"{average.points:+.2f} points on average"
    if average.low is None or average.high is None:
        return f"Not known whether {after} is better than {before} ({by}). {found.unknown}"
    sure = f"{by}, {100 * CONFIDENCE:.0f}% interval {average.low:+.2f} to {average.high:+.2f}"
    if average.verdict == "no difference":
        return f"No difference between {before} and {after} at the measured noise: {sure}."
    return f"{after} is {average.verdict} than {before}: {sure}."


def points_text(points: float, error: float | None) -> str:
    """Return a difference with its standard error, as ``+0.8 ± 0.3``."""
    # Zero has no minus.
    shown = f"{round(points, 1) + 0.0:+.1f}"
    return shown if error is None else f"{shown} ± {error:.1f}"


def _scores(found: Difference) -> list[str]:
    shown = points_text(found.points, found.standard_error)
    return [f"{found.before:.1f}", f"{found.after:.1f}", shown]


def _flips(flips: Flips | None) -> list[str]:
    return ["-", "-"] if flips is None else [f"{flips.negative:.1f}%", f"{flips.positive:.1f}%"]


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell + " " * (wide - width(cell)) for cell, wide in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
