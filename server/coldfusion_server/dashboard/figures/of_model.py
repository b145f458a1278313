"""The figures of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from coldfusion_server.dashboard import charts, formats, strips, telling, timeline
from coldfusion_server.dashboard.figures.figure import Cell, Column, Figure
from coldfusion_server.dashboard.figures.lineage import newest
from coldfusion_server.dashboard.loading import Reader
from coldfusion_server.dashboard.rendering import environment
from coldfusion_server.dashboard.scores import Gain, Series
from coldfusion_server.dashboard.values import Value
from coldfusion_server.services.courses import Course, PastBase
from coldfusion_shared.schemas.models import Model

# Room over a panel for its heading, and from one panel to the next.
HEAD, APART = 40.0, 16.0
# What the axis of distances spans at least, in percent of v0's norm.
LEAST_DISTANCE = 0.01
# Letters of a heading and of what stands under it, in a panel's width.
HEADING, NOTE = 52, 64

_SERIES = (
    Column("protocol", "frozen, finetuned or few-shot"),
    Column("suite", "the data sets together"),
    Column("suite_digest", "SHA-256 of the suite with its data; empty: not pinned"),
    Column("metric", "what a score is"),
)
_DATA_SET = (
    Column("data_set", "empty: the average of all, or of those of one kind"),
    Column("kind", "seen or unseen, where the suite says so"),
)


@dataclass(frozen=True)
class _Panel:
    """
    One of several charts below each other: lines of some kinds, or bars of gains.

    Attributes:
        heading, note: over it.
        chart: what is drawn.
        kinds: of the lines.
        gains: of the bars.
    """

    heading: str
    note: str
    chart: charts.Chart | charts.BarChart
    kinds: Sequence[str] = ()
    gains: Sequence[Gain] = ()


def scores(read: Reader, model: Model) -> Figure:
    """Return what was measured of v0 and of the newest bases that the head comes from."""
    found = read.current(model).series
    title = f"Scores of {model.name}"
    told = " ".join(
        f"{_named(item)}: {telling.line(item.versions, item.averages)}." for item in found
    )
    return Figure(
        name="scores",
        title=title,
        told=told or "Nothing has been measured yet.",
        columns=[
            *_SERIES,
            Column("base", "which base"),
            *_DATA_SET,
            Column("score", "in percent; the median of its evaluators"),
            Column("standard_error", "one standard error, in points"),
        ],
        rows=[row for item in found for row in _score_rows(item)],
        svg=_panels(title, [make for item in found for make in _lines(item)]),
    )


def gains(read: Reader, model: Model, version: str | None = None) -> Figure:
    """Return by how much a base, by default the last one that was measured, is better than v0."""
    if version is None:
        measured = read.current(model).series
    else:
        measured = [result.series for result in read.base(model.name, version).results]
    found = [item for item in measured if item.compared]
    title = f"{model.name} against v0, in points"
    told = " ".join(f"{_named(item)}: {telling.gains(item)}" for item in found)
    return Figure(
        name="gains",
        title=title,
        told=told or f"{version or 'No base'} has not been compared with v0 yet.",
        columns=[
            *_SERIES,
            Column("base", "the one that was measured"),
            Column("against", "the one that it is compared with"),
            *_DATA_SET,
            Column("points", "by how much it is better"),
            Column("standard_error", "one standard error of that, in points"),
            Column("clear", "whether it is more than chance explains 19 times out of 20"),
        ],
        rows=[row for item in found for row in _gain_rows(item)],
        svg=_panels(title, [_bars(item) for item in found]),
    )


def course(read: Reader, model: Model) -> Figure:
    """Return what became of the rounds, and how the head was moved."""
    return course_of(model, read.course(model))


def course_of(model: Model, past: Course) -> Figure:
    """Return the figure of a course that was read already."""
    found = timeline.marks(past)
    told = timeline.summary(found)
    present = {mark.kind for mark in found}
    kinds = [(kind, meaning) for kind, meaning in timeline.KINDS.items() if kind in present]
    drawn = environment().get_template("figures/course.svg")
    return Figure(
        name="course",
        title=f"The rounds of {model.name}",
        told=told,
        columns=[
            Column("what", f"of {', '.join(timeline.KINDS)}"),
            Column("at", "when it ended or happened; of a round under way, when it began"),
            Column("round", "its number; empty: the head was moved"),
            Column("before", "the base that it went from"),
            Column("after", "the base that came of it, or that the head was moved to"),
            Column("contributions", "accepted ones"),
            Column("missed_points", "by which a rejected candidate missed its gate"),
            Column("missed_on", "the data set that lost them; empty: the average"),
            Column("missed_times", "how many times as long as allowed its step was"),
            Column("reason", "why it ended so, as it was given"),
        ],
        rows=[_course_row(mark) for mark in found],
        svg=drawn.render(
            title=told,
            strip=strips.strip([mark.at for mark in found]),
            marks=found,
            links=[_link(model, mark) for mark in found],
            kinds=kinds,
        )
        if found
        else "",
    )


def distances(read: Reader, model: Model) -> Figure:
    """Return how far the bases are from v0."""
    return distances_of(model, read.course(model))


def distances_of(model: Model, past: Course) -> Figure:
    """Return the figure of a course that was read already."""
    line = [base for base in past.bases if base.on_line]
    labels = [f"v{base.number}" for base in line]
    percent = [None if base.distance is None else Value(100 * base.distance) for base in line]
    texts = {
        label: f"{value.score:.3g}"
        for label, value in zip(labels, percent, strict=True)
        if value is not None
    }
    told = _distance_words(line, texts)
    drawn = environment().get_template("figures/line.svg")
    return Figure(
        name="distances",
        title=f"Distance of {model.name} from v0, in % of its norm",
        told=told,
        columns=[
            Column("base", "which base"),
            Column("parent", "the base that it was fused onto; empty: v0 has none"),
            Column("replays", "the base that it stands in for, where a replay made it"),
            Column("published_at", "when it was published"),
            Column("on_line", "whether it is the head, or the head comes from it"),
            Column("distance", "norm of what moved since v0 over the norm of v0; empty: "
                               "not measured yet"),
        ],
        rows=[_distance_row(base) for base in past.bases],
        svg=drawn.render(
            title=told,
            chart=charts.line_chart(labels, [percent], LEAST_DISTANCE),
            texts=texts,
            unit=" %",
        )
        # v0 alone says nothing.
        if len(texts) > 1
        else "",
    )  # fmt: skip


def course_of_page(read: Reader, model: Model) -> dict[str, Any]:
    """Return what the page shows of a model's course, by the names of its template."""
    past = read.course(model)
    return {
        "marks": timeline.marks(past),
        "course": course_of(model, past),
        "distances": distances_of(model, past),
    }


FIGURES: dict[str, Callable[[Reader, Model], Figure]] = {
    "scores": scores,
    "gains": gains,
    "course": course,
    "distances": distances,
    "lineage": newest,
}


def _named(item: Series) -> str:
    return f"{item.protocol}, {formats.printable(item.suite)}, {formats.printable(item.metric)}"


def _key(item: Series) -> list[Cell]:
    return [item.protocol, item.suite, item.digest, item.metric]


def _score_rows(item: Series) -> list[list[Cell]]:
    key, rows = _key(item), []
    for base in item.bases:
        found: list[tuple[str | None, str | None, Value | None]] = [(None, None, base.average)]
        found += [(None, part.kind, base.over(part.names)) for part in item.parts]
        found += [(name, item.kinds.get(name), value) for name, value in base.values.items()]
        rows += [
            [*key, base.version, name, kind, value.score, value.error]
            for name, kind, value in found
            if value is not None
        ]
    return rows


def _gain_rows(item: Series) -> list[list[Cell]]:
    return [
        [
            *_key(item),
            item.versions[-1],
            item.versions[0],
            None if gain.average else gain.name,
            gain.kind,
            gain.value.score,
            gain.value.error,
            gain.value.clear,
        ]
        for gain in [*item.gains, *item.gains_by_dataset]
    ]


def _course_row(mark: timeline.Mark) -> list[Cell]:
    missed = mark.missed or timeline.Missed()
    return [
        mark.kind,
        formats.iso(mark.at),
        None if mark.round is None else mark.round.number,
        mark.before,
        mark.after,
        mark.accepted,
        missed.points,
        missed.dataset,
        missed.times,
        mark.reason,
    ]


def _link(model: Model, mark: timeline.Mark) -> str:
    if mark.round is not None:
        return f"/models/{model.name}/rounds/{mark.round.number}"
    return f"/models/{model.name}/bases/{mark.after}"


def _distance_row(base: PastBase) -> list[Cell]:
    return [
        f"v{base.number}",
        None if base.parent is None else f"v{base.parent}",
        None if base.replays is None else f"v{base.replays}",
        formats.iso(base.created_at),
        base.on_line,
        base.distance,
    ]


def _distance_words(line: Sequence[PastBase], texts: dict[str, str]) -> str:
    """Return how far the head is from v0, and what is not known."""
    names = [f"v{base.number}" for base in line]
    known = [name for name in names if name in texts]
    waiting = [name for name in names if name not in texts]
    said = [f"{known[-1]} is {texts[known[-1]]} % of v0's norm away from v0."] if known[1:] else []
    if len(known) > 2:
        farthest = max(line, key=lambda base: base.distance or 0.0)
        name = f"v{farthest.number}"
        said += [f"Farthest was {name}, at {texts[name]} %."] if name != known[-1] else []
    if waiting:
        more = f" and {len(waiting) - 3} more" if waiting[3:] else ""
        said.append(f"Not measured yet: {', '.join(waiting[-3:][::-1])}{more}.")
    return " ".join(said) or "The current base is v0 itself."


def _lines(item: Series) -> list[_Panel]:
    heading = charts.shortened(f"{item.protocol} · {formats.printable(item.suite)}", HEADING)
    note = f"{formats.printable(item.metric)}, %: average of "
    whole = charts.line_chart(item.versions, [item.averages])
    counted = formats.count(len(item.names), "data set")
    made = [(heading, f"{note}{counted}", whole, ["all"])]
    if item.parts:
        split = charts.line_chart(item.versions, item.part_averages)
        kinds = [str(part.kind) for part in item.parts]
        dashes = ", unseen dashed" if "unseen" in kinds else ""
        apart = f"{formats.printable(item.metric)}, %: {' and '.join(kinds)} data sets{dashes}"
        made.append((heading, apart, split, kinds))
    return [
        _Panel(title, charts.shortened(under, NOTE), chart, kinds=kinds)
        for title, under, chart, kinds in made
    ]


def _bars(item: Series) -> _Panel:
    rows = [*item.gains, *item.gains_by_dataset]
    chart = charts.bar_chart(
        [gain.name for gain in rows], [gain.value for gain in rows], len(item.gains)
    )
    heading = f"{item.versions[-1]} against {item.versions[0]}, in points"
    note = charts.shortened(_named(item).replace(", ", " · "), NOTE)
    return _Panel(heading, note, chart, gains=rows)


def _panels(title: str, made: Sequence[_Panel]) -> str:
    if not made:
        return ""
    heights = [HEAD + panel.chart.height + APART for panel in made]
    return environment().get_template("figures/panels.svg").render(
        title=title,
        width=charts.WIDTH,
        height=sum(heights),
        head=HEAD,
        panels=list(zip(made, accumulate(heights, initial=0.0), strict=False)),
    )  # fmt: skip
