"""What came out of it: the table of bases, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any


@dataclass(frozen=True)
class Scores:
    """
    One base's accuracy by task, in percent, measured by linear probing.

    Attributes:
        version: of the base.
        tasks: accuracy by task.
        error: standard error of the average, in points.
    """

    version: str
    tasks: dict[str, float]
    error: float | None

    @property
    def average(self) -> float:
        """The plain mean over the tasks."""
        return fmean(self.tasks.values())


def table(bases: Sequence[Scores]) -> str:
    """Return the table: a row a base, a column a task, the change against v0 at the end."""
    tasks = list(bases[0].tasks)
    head = ["base", *tasks, "average", "change"]
    rows = [head]
    for base in bases:
        change = base.average - bases[0].average
        cells = [f"{base.tasks[task]:.1f}" for task in tasks]
        rows.append(
            [
                base.version,
                *cells,
                f"{base.average:.1f}",
                "" if base is bases[0] else f"{change:+.1f}",
            ]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def write_results(path: Path, bases: Sequence[Scores], seconds: dict[str, float]) -> None:
    """Write the table as JSON, with the wall time that each kind of work took, in seconds."""
    data: dict[str, Any] = {
        "bases": [
            {
                "version": base.version,
                "average": round(base.average, 2),
                "standard_error": None if base.error is None else round(base.error, 2),
                "tasks": {task: round(score, 2) for task, score in base.tasks.items()},
            }
            for base in bases
        ],
        "seconds": {kind: round(value, 1) for kind, value in seconds.items()},
    }
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
