"""A run's results, read back from its records."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from coldfusion_shared.errors import InvalidRequest
from experiments.records import Group, Record, read
from experiments.runs import RECORDS, load
from experiments.settings import RunFile


@dataclass(frozen=True)
class Finished:
    """
    A run with its records.

    Attributes:
        folder: of the run.
        run: what was asked for.
        records: what was found out.
        label: what tells it from the other runs on a page; "": there are none.
    """

    folder: Path
    run: RunFile
    records: list[Record]
    label: str = ""

    @classmethod
    def of(cls, folder: Path) -> Finished:
        """
        Read the run in `folder`.

        Raises:
            InvalidRequest: there is none, or it has found out nothing yet.
        """
        run = load(folder)
        path = folder / RECORDS
        records = list(read(path)) if path.is_file() else []
        if not any(record.kind == "mean" for record in records):
            raise InvalidRequest(
                f"The run in {folder} has not ended yet.",
                hint=f"Go on with it: python -m experiments resume {folder}",
            )
        return cls(folder, run, records)

    @property
    def title(self) -> str:
        """What the run is called on a page."""
        return f"{self.run.protocol} ({self.label})" if self.label else self.run.protocol

    @property
    def stem(self) -> str:
        """What the names of its pictures begin with."""
        return self.label or self.run.protocol

    @property
    def reference(self) -> str:
        """The arm that all others are compared with: the first that was measured."""
        return self.arms[0]

    @property
    def arms(self) -> list[str]:
        """All arms that have scores, in the order in which they came."""
        return list(dict.fromkeys(one.arm for one in self.records if one.kind == "mean"))

    @property
    def scorings(self) -> list[str]:
        """The ways in which bases were scored."""
        found = (one.scoring for one in self.records if one.kind == "mean")
        return [scoring for scoring in dict.fromkeys(found) if scoring is not None]

    def datasets(self, scoring: str, group: Group = "all") -> list[str]:
        """Return the data sets that there are such scores of."""
        found = (
            one.dataset
            for one in self.records
            if (one.kind, one.scoring) == ("mean", scoring)
            and group in ("all", "seen" if one.seen else "unseen")
        )
        return [name for name in dict.fromkeys(found) if name is not None]

    def over(self, scoring: str, group: Group) -> str:
        """Return what means over a group are of, as 8 seen data sets."""
        count = len(self.datasets(scoring, group))
        kind = "" if group == "all" else f"{group} "
        return f"{count} {kind}data set{'' if count == 1 else 's'}"

    def last_iteration(self, arm: str, scoring: str) -> int:
        """Return the last round of an arm that has such scores; 0 for an arm that has none."""
        found = (
            one.iteration
            for one in self.records
            if one.kind == "mean" and (one.arm, one.scoring) == (arm, scoring)
        )
        return max(found, default=0)

    def course(self, arm: str, scoring: str, group: Group) -> list[Record]:
        """Return an arm's means over a group of data sets, by iteration."""
        found = [
            one
            for one in self.records
            if one.kind == "mean" and (one.arm, one.scoring, one.group) == (arm, scoring, group)
        ]
        return sorted(found, key=lambda one: one.iteration)

    def paired(self, arm: str, scoring: str, group: Group) -> list[Record]:
        """Return an arm's differences to the reference over a group, by iteration."""
        found = [
            one
            for one in self.records
            if one.kind == "difference"
            and (one.arm, one.scoring, one.group, one.against)
            == (arm, scoring, group, self.reference)
        ]
        return sorted(found, key=lambda one: one.iteration)

    def end(self, scoring: str) -> int:
        """Return the last round that any arm has such scores of."""
        return max(self.last_iteration(arm, scoring) for arm in self.arms)

    def difference(
        self, arm: str, against: str, scoring: str, group: Group = "all"
    ) -> Record | None:
        """Return by how much an arm's last base is better than another arm's; null: not known."""
        last = self.last_iteration(arm, scoring)
        wanted = (arm, against, scoring, group, last)
        for one in self.records:
            if one.kind != "difference":
                continue
            if (one.arm, one.against, one.scoring, one.group, one.iteration) == wanted:
                return one
        return None

    def gains(self, arm: str, scoring: str) -> list[Record]:
        """Return the differences of an arm's last base to the reference, by data set."""
        last = self.last_iteration(arm, scoring)
        return [
            one
            for one in self.records
            if one.kind == "difference"
            and one.dataset is not None
            and (one.arm, one.scoring, one.iteration, one.against)
            == (arm, scoring, last, self.reference)
        ]

    def of_kind(self, kind: str) -> list[Record]:
        """Return all records of a kind."""
        return [one for one in self.records if one.kind == kind]


def labelled(runs: Sequence[Finished]) -> list[Finished]:
    """Return runs of one page with labels that tell them apart; one alone needs none."""
    if len(runs) < 2:
        return list(runs)
    labels = distinct([finished.folder.resolve().name for finished in runs])
    return [replace(one, label=label) for one, label in zip(runs, labels, strict=True)]


def distinct(names: Sequence[str]) -> list[str]:
    """Return names that differ, whatever the case, and that any file may bear."""
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        safe = label = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "run"
        number = 1
        while label.lower() in taken:
            number += 1
            label = f"{safe}-{number}"
        taken.add(label.lower())
        found.append(label)
    return found
