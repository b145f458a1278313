"""A run's results, read back from its records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coldfusion_shared.errors import InvalidRequest
from experiments.records import Group, Record, read
from experiments.runs import RECORDS, load
from experiments.settings import RunFile


@dataclass(frozen=True)
class Finished:
    """A run with its records."""

    folder: Path
    run: RunFile
    records: list[Record]

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
