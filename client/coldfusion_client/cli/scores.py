"""Scores as people read them: a table of data sets, and a sentence below it."""

from __future__ import annotations

from coldfusion_client.evaluation.outcome import Measured, Outcome
from coldfusion_shared.evaluate.comparison_text import comparison_table, verdict_text
from coldfusion_shared.evaluate.results import DatasetResult, Evaluated
from coldfusion_shared.evaluate.statistics import average_error

Row = list[str]


def table(outcome: Outcome) -> tuple[Row, list[Row]]:
    """Return titles and rows: the data sets in their order, then averages."""
    if outcome.comparison is None:
        return _single(outcome.newest.evaluated)
    titles, rows = comparison_table(outcome.comparison, *outcome.labels)
    return [title if title in outcome.labels else _title(title) for title in titles], rows


def told(outcome: Outcome) -> str:
    """Return what came of it in a sentence or two."""
    if outcome.comparison is None:
        return _average(outcome.newest)
    return verdict_text(outcome.comparison, *outcome.labels)


def essence(outcome: Outcome) -> str:
    """Return what a script goes on with: the verdict on two models, or the average of one."""
    if outcome.comparison is not None and all(one.asked for one in outcome.measured):
        return outcome.comparison.verdict
    return f"{outcome.newest.evaluated.average:.2f}"


def _title(title: str) -> str:
    """Return a title as our tables have it, and so short that 80 columns suffice for the table."""
    return title.lower().replace("negative", "neg.").replace("positive", "pos.")


def _single(found: Evaluated) -> tuple[Row, list[Row]]:
    rows = [[one.name, one.metric, *_score(one.score, one.standard_error)] for one in found.results]
    rows.append(["average", "", *_score(found.average, found.standard_error)])
    for name, seen in (("average, seen", True), ("average, unseen", False)):
        chosen = [one for one in found.results if one.seen is seen]
        if chosen:
            rows.append([name, "", *_mean(chosen)])
    return ["data set", "metric", "score", "±"], rows


def _mean(results: list[DatasetResult]) -> Row:
    average = sum(one.score for one in results) / len(results)
    return _score(average, average_error([one.standard_error for one in results]))


def _score(score: float, error: float | None) -> Row:
    return [f"{score:.1f}", "-" if error is None else f"{error:.1f}"]


def _average(one: Measured) -> str:
    found = one.evaluated
    seeds, sets = len(found.seeds), len(found.results)
    error = "" if found.standard_error is None else f" ± {found.standard_error:.2f}"
    return (
        f"{one.name}: {found.average:.2f}{error} on average over {sets} data "
        f"set{'s' if sets > 1 else ''} ({found.protocol}, {seeds} seed{'s' if seeds > 1 else ''})."
    )
