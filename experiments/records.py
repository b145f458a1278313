"""What an experiment has found out, one line of JSON each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from coldfusion_shared.errors import InvalidRequest

FILE = "records.jsonl"
Kind = Literal["score", "mean", "difference", "choice", "measure", "failure"]
# Which data sets a mean is over.
Group = Literal["all", "seen", "unseen"]


class Record(BaseModel):
    """
    One measurement.

    Attributes:
        kind: ``score``: one base, data set and seed. ``mean``: over all seeds, of a data set or of
            a group of them. ``difference``: that of two arms, paired by seeds and test examples.
            ``choice``: a rate that was chosen on validation parts. ``measure``: another number,
            which `note` names. ``failure``: what came to nothing, and `note` says why.
        protocol: of the run.
        arm: which of the things that the protocol compares.
        iteration: round of its line; 0: the pretrained model.
        seed: null: all of them.
        dataset: null: a group.
        group: null: a single data set.
        seen: whether contributors may have trained on the data set.
        scoring: frozen, finetuned or few-shot.
        metric: of the score.
        value: score in percent, difference in points, or what `note` says.
        standard_error: in points: of the test examples alone for one seed, else of seeds and test
            examples together; null: not known.
        low, high: interval of 95% of a difference.
        against: the arm that a difference is to; its iteration is its last one. Or, of the arm
            itself, "its first scored round" or "its gain on unseen data sets".
        seconds: that the measurement took, of all data sets that were scored together.
        base: digest of the base that was scored.
        data: digest of the data set.
        note: a sentence, or a name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    protocol: str
    arm: str
    iteration: int = 0
    seed: int | None = None
    dataset: str | None = None
    group: Group | None = None
    seen: bool | None = None
    scoring: str | None = None
    metric: str | None = None
    value: float | None = None
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None
    against: str | None = None
    seconds: float | None = None
    base: str | None = None
    data: str | None = None
    note: str | None = None


class Records:
    """A file of them, written as they come."""

    def __init__(self, path: Path) -> None:
        """Use the file; it is made with the first one."""
        self.path = path

    def begin(self) -> None:
        """Begin the file anew: a run that goes on finds again, at once, what it has found."""
        self.path.write_text("", encoding="utf-8")

    def add(self, record: Record) -> None:
        """Append one."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(record.model_dump_json(exclude_none=True) + "\n")


def read(path: Path) -> Iterator[Record]:
    """
    Yield the records of a file; a last line that was cut off is left out.

    Raises:
        InvalidRequest: it is none.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            yield Record.model_validate_json(line)
        except ValidationError:
            raise InvalidRequest(f"{path}, line {number}: this is no record.") from None
