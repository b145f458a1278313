"""Which metrics a data set may be scored by."""

from __future__ import annotations

from collections.abc import Mapping

from coldfusion_shared.tasks import task_named
from coldfusion_shared.tasks.scores import OF_CLASSES, OF_NUMBERS, Score

# The tasks that are scored on one guess an example.
_SCORERS: Mapping[str, Mapping[str, Score]] = {
    "classification": OF_CLASSES,
    "regression": OF_NUMBERS,
}


def metrics_of(task: str) -> tuple[str, ...]:
    """Return the names of the metrics that fit a task; raises `UnknownName` without such a task."""
    return tuple(_SCORERS[task]) if task in _SCORERS else (task_named(task).metric,)


def scorer_of(task: str, metric: str) -> Score | None:
    """Return what computes a metric from guesses; null where only the task's own scoring can."""
    return _SCORERS[task][metric] if task in _SCORERS else None
