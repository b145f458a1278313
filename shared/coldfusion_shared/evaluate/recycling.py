"""Bases side by side, as Model Recycling shows them: a Markdown table for a model's card."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.evaluate.comparison import Comparison, Difference, compare
from coldfusion_shared.evaluate.comparison_text import points_text
from coldfusion_shared.evaluate.results import DatasetResult, Evaluated
from coldfusion_shared.evaluate.statistics import CONFIDENCE

# More columns of scores with errors do not fit a page.
MOST_COLUMNS = 8


def recycling_table(bases: Sequence[tuple[str, Evaluated]]) -> str:
    """
    Return a Markdown table: data sets are its rows and bases its columns.

    Below the data sets are each base's average and its gain over the first one; of more than
    `MOST_COLUMNS` bases the first and the last ones are shown.

    Args:
        bases: names and scores, oldest first.

    Raises:
        InvalidRequest: no bases, or other protocols or seeds than the first one's.
        SuiteChanged: they were not measured by one suite.
    """
    if not bases:
        raise InvalidRequest("There is no base to show.", hint="Name one at least.")
    shown = bases if len(bases) <= MOST_COLUMNS else [bases[0], *bases[1 - MOST_COLUMNS :]]
    first = shown[0][1]
    gains = [compare(first, evaluated) for _, evaluated in shown[1:]]
    names = [_escaped(name) for name, _ in shown]
    lines = [
        _row(["data set", *names]),
        _row(["---", *("---:" for _ in names)]),
        *_scores([evaluated for _, evaluated in shown]),
        _row(["**average**", *(_average(evaluated) for _, evaluated in shown)]),
        *_gains(gains),
        "",
        _caption(first, names[0], gains=bool(gains), left_out=len(bases) - len(shown)),
    ]
    return "\n".join(lines) + "\n"


def _scores(bases: Sequence[Evaluated]) -> list[str]:
    mixed = len({result.metric for result in bases[0].results}) > 1
    return [
        _row(
            [
                _dataset(results[0], mixed),
                *(_shown(one.score, one.standard_error) for one in results),
            ]
        )
        for results in zip(*(base.results for base in bases), strict=True)
    ]


def _dataset(result: DatasetResult, mixed: bool) -> str:
    return _escaped(f"{result.name} ({result.metric})" if mixed else result.name)


def _average(evaluated: Evaluated) -> str:
    return _shown(evaluated.average, evaluated.standard_error)


def _gains(gains: Sequence[Comparison]) -> list[str]:
    """Return the rows of gains: of all data sets, and of seen and unseen ones where it is known."""
    kinds: Mapping[str, Sequence[Difference | None]] = {
        "**gain**": [gain.average for gain in gains],
        "gain, seen": [gain.seen for gain in gains],
        "gain, unseen": [gain.unseen for gain in gains],
    }
    return [
        _row([title, "", *map(_gain, found)])
        for title, averages in kinds.items()
        if (found := [average for average in averages if average is not None])
    ]


def _gain(found: Difference) -> str:
    told = points_text(found.points, found.standard_error)
    return f"**{told}**" if found.verdict in ("better", "worse") else told


def _shown(score: float, error: float | None) -> str:
    return f"{score:.1f}" if error is None else f"{score:.1f} ± {error:.1f}"


def _caption(first: Evaluated, name: str, *, gains: bool, left_out: int) -> str:
    """Return what the numbers are; `name` is the first base's."""
    seeds = len(first.seeds)
    metrics = {result.metric for result in first.results}
    said = (
        f"Suite {_escaped(first.suite.name)}, protocol {first.protocol}: "
        f"{_escaped(min(metrics)) if len(metrics) == 1 else 'scores'} in percent, "
        f"the mean over {seeds} seed{'s' if seeds > 1 else ''}"
        f"{'' if first.standard_error is None else ', with standard errors'}."
    )
    if gains:
        said += f" The gain is that of the average over {name}'s"
        said += "." if seeds == 1 else f"; bold: its {100 * CONFIDENCE:.0f}% interval has no zero."
    small = [_escaped(result.name) for result in first.results if result.with_replacement]
    if small:
        said += (
            f" There are so few training examples of {', '.join(small)} that they are drawn with "
            "replacement, which lowers all bases' scores a little."
        )
    if left_out:
        said += f" {left_out} base{'s' if left_out > 1 else ''} after {name} are not shown."
    return said


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Return what readers of Markdown show as `text`, and take for neither Markdown nor HTML."""
    # Some readers know no backslash before these.
    entities = re.sub(r"[<>&|`~$]", lambda found: f"&#{ord(found[0])};", " ".join(text.split()))
    return re.sub(r"([\\*_\[\]])", r"\\\1", entities)
