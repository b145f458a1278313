"""One page of what some runs have come to: what agrees with the paper, what does not, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.cache import write_text
from experiments.records import Group, Record
from experiments.report.claims import ALIKE, Judged, experiment_of, judged
from experiments.report.document import (
    Block,
    Heading,
    Items,
    Paragraph,
    Picture,
    html,
    markdown,
)
from experiments.report.finished import Finished, labelled
from experiments.report.plots import draw_course, draw_gains
from experiments.report.tables import (
    arms_table,
    claims_table,
    found_text,
    is_told,
    means_csv,
    pairs_table,
    paper_text,
)
from experiments.settings import Learnt

PAGE, TEXT, NUMBERS = "report.html", "report.md", "numbers.csv"
GROUPS: tuple[Group, ...] = ("all", "seen", "unseen")
TITLE = "Experiments with ColD Fusion"
MOST_FAILURES = 20
SIEVED = (
    "The paper's figures are of all its data sets, these of those that are not left out: see above."
)


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """
    Write the page, as HTML and as Markdown, with its pictures and numbers; return the HTML file.

    Args:
        folders: of runs that have ended.
        out: a folder; what is there of an earlier report is written over.

    Raises:
        InvalidRequest: one of them is no run, or has not ended.
    """
    runs = labelled([Finished.of(folder) for folder in folders])
    out.mkdir(parents=True, exist_ok=True)
    blocks: list[Block] = [Heading(1, TITLE), *_summary(runs)]
    for finished in runs:
        blocks += _section(finished, out)
    write_text(out / NUMBERS, means_csv(runs))
    write_text(out / TEXT, markdown(blocks))
    write_text(out / PAGE, html(blocks, TITLE))
    return out / PAGE


def _summary(runs: Sequence[Finished]) -> list[Block]:
    found = [one for finished in runs for one in judged(finished)]
    if not found:
        return [Paragraph("None of these experiments is one of the paper's: they are our own.")]
    counts = Counter(one.verdict for one in found)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in counts)
    blocks: list[Block] = [
        Paragraph(
            f"Of {len(found)} findings of the paper that were looked at: {told}. A finding is "
            "shown where the interval of 95% of our own paired difference leaves out zero; that "
            f"two are alike, where it lies whole within -{ALIKE:g} to +{ALIKE:g} points; what most "
            "data sets do, where the interval of their share leaves out one half."
        )
    ]
    lower = [
        _lower(finished, one) for finished in runs for one in judged(finished) if _is_lower(one)
    ]
    if lower:
        blocks += [Paragraph("Lower here than in the paper:"), Items(lower)]
    return blocks


def _is_lower(one: Judged) -> bool:
    paper = one.claim.points if one.claim.share is None else one.claim.share
    ours = None if one.found is None else one.found.value
    return ours is not None and paper is not None and ours < paper


def _lower(finished: Finished, one: Judged) -> str:
    where = f"{finished.title}: " if finished.label else ""
    return f"{where}{one.claim.text}: {found_text(one)} here, {paper_text(one)} there"


def _section(finished: Finished, out: Path) -> list[Block]:
    blocks: list[Block] = [Heading(2, finished.title), *_scale(finished)]
    if (table := claims_table(finished)) is not None:
        blocks += [Heading(3, "Beside the paper"), table]
        if any(not one.kept for one in (finished.run.learnt or {}).values()):
            blocks.append(Paragraph(SIEVED))
    for scoring in finished.scorings:
        blocks += _scored(finished, scoring, out)
    if (table := pairs_table(finished)) is not None:
        blocks += [Heading(3, "Arms beside each other"), table]
    return [*blocks, *_tried(finished)]


def _scale(finished: Finished) -> list[Block]:
    run, settings = finished.run, finished.run.settings
    experiment, measuring = experiment_of(run.protocol), settings.measuring
    scored = f"{measuring.test} test examples"
    if measuring.split == "validation":
        scored = f"{(measuring.validation + 1) // 2} validation examples"
    lines = [
        f"Data sets that the run was given: {len(run.data_digests)}; each table says below which "
        "its means are of",
        f"Rounds: {settings.rounds}, contributions to each: "
        f"{settings.contributors}, unless compared. Examples of a contribution: up to "
        f"{settings.examples}, epochs: {settings.learning.epochs:g}, tokens: "
        f"{settings.learning.max_length}. Seeds: {settings.seeds}",
        f"Scored on {scored} of each data set at most, having learnt from {measuring.train}",
        f"Base {run.base_digest[:12]} in {Path(run.base).name}; preset {run.preset}; {run.code}; "
        f"{run.libraries}" + (f"; fused by {run.server}" if run.server else ""),
    ]
    if run.learnt is not None:
        lines.insert(1, _left_out(run.learnt))
    if experiment is not None:
        lines.insert(0, f"The paper: {experiment.setting}")
    return [Items(lines)]


def _left_out(learnt: Mapping[str, Learnt]) -> str:
    left = [
        f"{name} ({'diverged' if one.score is None else f'{one.score:.1f}'}; {one.largest:.1f})"
        for name, one in learnt.items()
        if not one.kept
    ]
    if not left:
        return "None of them was left out: the base learns something of each."
    return (
        "Left out before the run began, as the base finetuned on a contribution's examples was not "
        "above the largest class by more than chance (validation accuracy; share of that class): "
        f"{', '.join(left)}"
    )


def _scored(finished: Finished, scoring: str, out: Path) -> list[Block]:
    blocks: list[Block] = []
    groups = [group for group in GROUPS if is_told(finished, scoring, group)]
    for group in groups:
        table = arms_table(finished, scoring, group)
        if table is None:
            continue
        over, names = finished.over(scoring, group), finished.datasets(scoring, group)
        blocks += [
            Heading(3, f"{scoring.capitalize()}, {over}"),
            Paragraph(f"Means over {over}: {', '.join(names)}."),
            table,
        ]
        file = draw_course(finished, scoring, group, out)
        blocks.append(Picture(file, f"{scoring} scores, means over {over}, by round"))
    others = [arm for arm in finished.arms if arm != finished.reference]
    file_of_gains = draw_gains(finished, others[0], scoring, out) if others else None
    if file_of_gains is not None:
        told = f"gain of {others[0]} over {finished.reference} by data set, {scoring}"
        blocks.append(Picture(file_of_gains, told))
        blocks.append(Paragraph(_spread(finished, others[0], scoring)))
    return blocks


def _spread(finished: Finished, arm: str, scoring: str) -> str:
    gains = [one.value or 0.0 for one in finished.gains(arm, scoring)]
    better = sum(gain > 0 for gain in gains)
    return (
        f"{scoring.capitalize()}, {arm} is above {finished.reference} on {better} of {len(gains)} "
        f"data sets; the largest gain is {max(gains):+.2f} points, the least {min(gains):+.2f}."
    )


def _tried(finished: Finished) -> list[Block]:
    blocks: list[Block] = []
    choices = [f"{one.arm}: {one.value:g}, {one.note}" for one in finished.of_kind("choice")]
    measures = _measures(finished.of_kind("measure"))
    if choices or measures:
        blocks += [Heading(3, "What was tried"), Items([*dict.fromkeys(choices), *measures])]
    failures = [_failure(one) for one in finished.of_kind("failure")]
    if failures:
        blocks += [
            Heading(3, "Failures"),
            Paragraph(f"{len(failures)} things came to nothing; scores are of the others."),
            Items(failures[:MOST_FAILURES]),
        ]
    return blocks


def _measures(records: Sequence[Record]) -> list[str]:
    """Return a line for each arm and quantity: its values over the rounds, the mean over seeds."""
    lines = []
    for arm, note in dict.fromkeys((one.arm, one.note) for one in records):
        found = [one for one in records if (one.arm, one.note) == (arm, note)]
        values = [
            [one.value or 0.0 for one in found if one.iteration == iteration]
            for iteration in sorted({one.iteration for one in found})
        ]
        means = ", ".join(f"{sum(one) / len(one):.3g}" for one in values)
        lines.append(f"{arm}, {note} by round: {means}")
    return lines


def _failure(record: Record) -> str:
    where = [record.arm]
    if record.iteration:
        where.append(f"round {record.iteration}")
    if record.seed is not None:
        where.append(f"seed {record.seed}")
    return f"{', '.join(where)}: {record.note}"
