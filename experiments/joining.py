"""What all seeds have scored: several suites of one side by side, as of the folds of a pool."""

from __future__ import annotations

from collections.abc import Sequence

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.evaluate.results import Evaluated


def common(found: Sequence[Sequence[Evaluated]]) -> tuple[list[Evaluated], list[str]]:
    """
    Return the evaluations of each seed as one, of those suites that all of them have.

    A fold whose line has come to nothing in one seed is left out in all: so the seeds are of the
    same data sets, in the same order. A data set may be in several folds, seen in some of them.

    Args:
        found: of each seed, one evaluation for each suite.

    Returns:
        One evaluation for each seed; and the data sets that are left out, as "films (unseen)".

    Raises:
        InvalidRequest: there is no suite that all have.
    """
    suites = {part.suite.digest(): part.suite for parts in found for part in parts}
    by_suite = [{part.suite.digest(): part for part in parts} for parts in found]
    kept = [digest for digest in suites if all(digest in parts for parts in by_suite)]
    if not kept:
        raise InvalidRequest("No data sets were scored with every seed.")
    without = [
        entry.name if entry.seen is None else f"{entry.name} ({'' if entry.seen else 'un'}seen)"
        for digest, suite in suites.items() if digest not in kept
        for entry in suite.datasets
    ]  # fmt: skip
    return [_side_by_side([parts[digest] for digest in kept]) for parts in by_suite], without


def _side_by_side(parts: Sequence[Evaluated]) -> Evaluated:
    """Return several suites of one seed as one."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    datasets = [entry for part in parts for entry in part.suite.datasets]
    results = tuple(result for part in parts for result in part.results)
    suite = first.suite.model_copy(update={"datasets": datasets})
    return Evaluated(suite, first.protocol, results)
