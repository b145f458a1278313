"""
How long the work of workers and evaluators took, kept in the database.

They run in processes and on machines of their own, which nobody scrapes: the API shows these as
histograms. Each piece of work is a row, written in the transaction of what it led to; none is ever
changed or removed, so that the histograms only grow, and nobody waits for a counter's lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import WorkTimeRow

# Upper bounds in seconds: from a toy's screening to the fuse of a large model.
BUCKETS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)


class WorkTimed(StrEnum):
    """Work whose time is kept."""

    SCREENING = "screening"
    FUSING = "fusing"
    EVALUATION = "evaluation"


@dataclass(frozen=True)
class Times:
    """
    All work of one kind that ended in one way.

    Attributes:
        kind: of work.
        model_id: whose.
        outcome: how it ended.
        number: of pieces of work.
        seconds: of all of them together.
        within: how many took at most as long as each of `BUCKETS`.
    """

    kind: WorkTimed
    model_id: int
    outcome: str
    number: int
    seconds: float
    within: Sequence[int]


def keep(session: Session, kind: WorkTimed, model_id: int, outcome: str, seconds: float) -> None:
    """Write down that a piece of work took so many seconds."""
    row = WorkTimeRow(kind=kind.value, model_id=model_id, outcome=outcome, seconds=seconds)
    session.add(row)


def times(session: Session) -> list[Times]:
    """Return all that was kept, by kind, model and outcome, in their order."""
    by = (WorkTimeRow.kind, WorkTimeRow.model_id, WorkTimeRow.outcome)
    bounds = ((WorkTimeRow.seconds <= bound, place) for place, bound in enumerate(BUCKETS))
    bucket = case(*bounds, else_=len(BUCKETS)).label("bucket")
    query = select(*by, bucket, func.count(), func.sum(WorkTimeRow.seconds))
    numbers: dict[tuple[str, int, str], list[int]] = {}
    seconds: dict[tuple[str, int, str], float] = {}
    for kind, model, outcome, place, number, took in session.execute(query.group_by(*by, "bucket")):
        key = (kind, model, outcome)
        numbers.setdefault(key, [0] * (len(BUCKETS) + 1))[place] = number
        seconds[key] = seconds.get(key, 0.0) + took
    return [
        _times(WorkTimed(kind), model, outcome, counts, seconds[kind, model, outcome])
        for (kind, model, outcome), counts in sorted(numbers.items())
    ]


def _times(
    kind: WorkTimed, model: int, outcome: str, counts: Sequence[int], seconds: float
) -> Times:
    """Add up what took between two bounds each; the last one is above all of them."""
    *within, number = accumulate(counts)
    return Times(kind, model, outcome, number, seconds, within)
