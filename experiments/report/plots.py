"""Courses over the rounds with bands of one standard error, and arms beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coldfusion_shared.pictures import drawing
from experiments.records import Group, Record
from experiments.report.finished import Finished

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that all eyes tell apart (Okabe and Ito), and shapes for those who see none.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a7a7a", "#000000")
SHAPES = "osD^vP*X"
BAND = 0.12
WIDTH, HEIGHT, BAR = 9.0, 4.0, 0.32
FORMATS = ("svg", "png")


def draw_course(finished: Finished, scoring: str, group: Group, folder: Path) -> Path:
    """
    Draw all arms over the rounds, into an SVG and a PNG; return the SVG.

    To the left their means, whose errors are mostly those of the test examples, which all arms
    share; to the right their gains over the reference, paired, from which that is taken off.
    """
    stem = f"{finished.stem}-{scoring}-{group}"
    for ending in FORMATS:
        with drawing(folder / f"{stem}.{ending}", (WIDTH, HEIGHT)) as figure:
            scores, gains = figure.subplots(1, 2)
            _draw_courses(scores, finished, scoring, group)
            _draw_paired(gains, finished, scoring, group)
            scores.set_ylabel("percent, ± standard error")
            gains.set_ylabel(f"points over {finished.reference}, ± standard error")
            for axes in (scores, gains):
                axes.set_xlabel("round")
                axes.xaxis.get_major_locator().set_params(integer=True)
                axes.grid(alpha=0.3)
            figure.suptitle(_title(finished, scoring, group), fontsize=11)
            scores.legend(fontsize=7)
    return folder / f"{stem}.svg"


def draw_gains(finished: Finished, arm: str, scoring: str, folder: Path) -> Path | None:
    """Draw an arm's gain over the reference by data set; return the SVG, null without gains."""
    gains = sorted(finished.gains(arm, scoring), key=lambda one: one.value or 0.0)
    if not gains:
        return None
    stem = f"{finished.stem}-{scoring}-gains"
    for ending in FORMATS:
        size = (WIDTH, 1.3 + BAR * len(gains))
        with drawing(folder / f"{stem}.{ending}", size) as figure:
            axes = figure.add_subplot()
            _draw_bars(axes, gains)
            axes.set_title(f"Gain of {arm} over {finished.reference}, {scoring}", fontsize=11)
            axes.set_xlabel("points, ± standard error")
    return folder / f"{stem}.svg"


def _draw_courses(axes: Axes, finished: Finished, scoring: str, group: Group) -> None:
    start = finished.course(finished.reference, scoring, group)[:1]
    for index, arm in enumerate(finished.arms):
        course = finished.course(arm, scoring, group)
        if course:
            _draw_arm(axes, course, start, finished.end(scoring), index, arm)


def _draw_paired(axes: Axes, finished: Finished, scoring: str, group: Group) -> None:
    axes.axhline(0, color=COLOURS[0], linestyle="--")
    nothing = Record(kind="difference", protocol="", arm="", value=0.0, standard_error=0.0)
    for index, arm in enumerate(finished.arms):
        course = finished.paired(arm, scoring, group)
        if course:
            _draw_arm(axes, course, [nothing], finished.end(scoring), index, arm)


def _draw_arm(
    axes: Axes,
    course: Sequence[Record],
    start: Sequence[Record],
    end: int,
    index: int,
    arm: str,
) -> None:
    """Draw a course from where all begin, or what has no rounds as a line across all of them."""
    colour, shape = COLOURS[index % len(COLOURS)], SHAPES[index % len(SHAPES)]
    style, points = shape + "-", [*start, *course]
    places = [one.iteration for one in points]
    if course[-1].iteration == 0:
        style, points, places = "--", [course[-1]] * 2, [0, max(end, 1)]
    values = [one.value or 0.0 for one in points]
    errors = [one.standard_error or 0.0 for one in points]
    axes.plot(places, values, style, color=colour, label=arm, markersize=5)
    low = [value - error for value, error in zip(values, errors, strict=True)]
    high = [value + error for value, error in zip(values, errors, strict=True)]
    axes.fill_between(places, low, high, color=colour, alpha=BAND, linewidth=0)


def _draw_bars(axes: Axes, gains: Sequence[Record]) -> None:
    kinds = {
        True: (COLOURS[0], "seen"),
        False: (COLOURS[4], "unseen"),
        None: (COLOURS[6], "not said whether seen"),
    }
    for seen, (colour, name) in kinds.items():
        places = [place for place, one in enumerate(gains) if one.seen is seen]
        if places:
            axes.barh(
                places,
                [gains[place].value or 0.0 for place in places],
                xerr=[gains[place].standard_error or 0.0 for place in places],
                color=colour, label=name, error_kw={"linewidth": 1},
            )  # fmt: skip
    axes.set_yticks(range(len(gains)), [one.dataset or "" for one in gains], fontsize=8)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.legend(fontsize=8)


def _title(finished: Finished, scoring: str, group: Group) -> str:
    return f"{finished.title}: {scoring}, {finished.over(scoring, group)}"
