"""What was measured of a base as Markdown, for its model card. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from coldfusion_server.dashboard import formats, words
from coldfusion_server.dashboard.loading import Result
from coldfusion_server.dashboard.scores import Row
from coldfusion_server.services.evaluation_tries import EvaluationFailure
from coldfusion_shared.schemas.evaluations import Evaluation

DASH = "\N{EN DASH}"


def scores(results: Sequence[Result], failures: Sequence[EvaluationFailure], card: str) -> str:
    """
    Return the card's section on scores.

    Args:
        results: what was measured of the base.
        failures: what could not be measured of it.
        card: URL of the card; the gain charts are below it.
    """
    said = [_section(result, card) for result in results]
    said += [_failure(failure) for failure in failures]
    return "\n\n".join(["## Scores", *(said or ["Nobody has measured this base yet."])]) + "\n"


def _failure(failure: EvaluationFailure) -> str:
    what = f"{failure.protocol}, {formats.markdown(failure.suite)}"
    reason = formats.markdown(formats.sentence(failure.reason))
    return f"{words.FAILED[failure.left].format(failure.version)} ({what}): {reason}"


def _section(result: Result, card: str) -> str:
    series = result.series
    parts = [
        f"### {series.protocol}, {formats.markdown(series.suite)}, "
        f"{formats.markdown(series.metric)} in percent",
        _table(result),
        _origin(result),
    ]
    if series.compared:
        words = f"{series.versions[-1]} against {series.versions[0]}, data set by data set"
        parts.append(f"![{words}]({card}/gain.svg?series={series.key})")
    return "\n\n".join(parts)


def _table(result: Result) -> str:
    table = result.table
    heads = ["data set", *table.versions, *(f"since {version}" for version in table.against)]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    lines += [[f"**{row.name}**", *_cells(row)] for row in table.averages]
    lines += [[_name(row), *_cells(row)] for row in table.datasets]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _name(row: Row) -> str:
    return formats.markdown(row.name) + (f" ({row.kind})" if row.kind else "")


def _cells(row: Row) -> list[str]:
    values = [formats.value(value) if value else DASH for value in row.values]
    return values + [formats.gain(value) if value else DASH for value in row.changes]


def _origin(result: Result) -> str:
    series = result.series
    pinned = (
        f"pinned by the digest `{series.digest}` of all its data"
        if series.digest
        else "not pinned: no digest says on which data this was measured"
    )
    errors = " After ± stands one standard error." if series.has_errors else ""
    by = "; ".join(_evaluator(item) for item in result.measured.evaluations)
    return f"Suite {formats.markdown(series.suite)}, {pinned}.{errors} Measured by {by}."


def _evaluator(item: Evaluation) -> str:
    facts = [f"{item.created_at:%Y-%m-%d}"]
    if item.software:
        facts.append(formats.markdown(item.software))
    if item.seeds:
        facts.append(formats.count(len(item.seeds), "seed"))
    return f"{item.evaluator} ({', '.join(facts)})"
