"""What a base gains over an earlier one, data set by data set, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coldfusion_shared import pictures
from coldfusion_shared.evaluate.comparison import Comparison, DatasetDifference, Difference
from coldfusion_shared.evaluate.comparison_text import points_text
from coldfusion_shared.letters import wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that all eyes tell apart (Okabe and Ito), by whether a data set was seen.
COLOURS = {True: "#0072b2", False: "#e69f00", None: "#7a7a7a"}
AVERAGE = "#b3003c"
MEANINGS = {True: "seen", False: "unseen", None: "not said whether seen"}
# Inches: as wide as a telephone shows it readably.
WIDTH, BAR, REST = 5.0, 0.36, 1.7
# Columns of a line, of a name and of the title, and how many lines they have at most.
LINE, TITLE, LINES = 20, 44, 2


def check_format(path: Path) -> None:
    """Check that a chart can be written to `path`; raises `InvalidRequest`, `MissingExtra`."""
    pictures.check_format(path, "A gain chart", "train")


def draw_gains(path: Path, found: Comparison, before: str, after: str) -> None:
    """
    Draw the differences of `found` to `path`, a PNG or SVG by its ending, the best above.

    Error bars, and the band around the average, are one standard error to either side.

    Args:
        path: of the file.
        found: the comparison of two bases.
        before: the earlier base's name, mostly v0.
        after: the later base's name.
    """
    datasets = sorted(found.datasets, key=lambda data: (data.scores.points, data.name))
    seeds = len(found.seeds)
    title = (
        f"{wrapped(f'Gain of {after} over {before}', TITLE, LINES)}\n"
        f"{found.protocol}, {seeds} seed{'s' if seeds > 1 else ''}"
    )
    with pictures.drawing(path, (WIDTH, REST + BAR * len(datasets))) as figure:
        axes = figure.add_subplot()
        _draw_bars(axes, datasets)
        _draw_average(axes, found.average)
        axes.set_title(title, fontsize=11, parse_math=False)
        axes.set_xlabel("points, ± standard error" if _has_errors(found) else "points")
        _draw_legend(figure, axes)


def _draw_bars(axes: Axes, datasets: Sequence[DatasetDifference]) -> None:
    """Draw the first one lowest; each kind of data sets has its colour and its word."""
    for seen, colour in COLOURS.items():
        places = [place for place, data in enumerate(datasets) if data.seen is seen]
        if not places:
            continue
        scores = [datasets[place].scores for place in places]
        axes.barh(places, [one.points for one in scores], color=colour, label=MEANINGS[seen])
    known = [
        (data.scores.points, place, data.scores.standard_error)
        for place, data in enumerate(datasets)
        if data.scores.standard_error is not None
    ]
    if known:
        points, heights, errors = zip(*known, strict=True)
        axes.errorbar(points, heights, xerr=errors, fmt="none", ecolor="black", capsize=2)
    names = [wrapped(data.name, LINE, LINES) for data in datasets]
    axes.set_yticks(range(len(datasets)), names, fontsize=9, parse_math=False)
    axes.set_ylim(-0.6, len(datasets) - 0.4)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def _draw_average(axes: Axes, average: Difference) -> None:
    told = f"average {points_text(average.points, average.standard_error)}"
    axes.axvline(average.points, color=AVERAGE, linestyle="--", linewidth=1.2, label=told)
    if average.standard_error is not None:
        low, high = (average.points + way * average.standard_error for way in (-1, 1))
        axes.axvspan(low, high, color=AVERAGE, alpha=0.15, linewidth=0, zorder=0)


def _draw_legend(figure: Figure, axes: Axes) -> None:
    """Explain the colours and the line below the chart, whose average is said last."""
    line, *bars = zip(*axes.get_legend_handles_labels(), strict=True)
    handles, words = zip(*bars, line, strict=True)
    figure.legend(handles, words, loc="outside lower center", ncols=2, fontsize=9, frameon=False)


def _has_errors(found: Comparison) -> bool:
    return any(data.scores.standard_error is not None for data in found.datasets)
