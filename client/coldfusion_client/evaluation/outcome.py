"""What came of an evaluation: models with their scores, and how two of them compare."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_client.candidates import label
from coldfusion_shared.schemas.bases import Base
from coldfusion_shared.schemas.rounds import Candidate

if TYPE_CHECKING:
    from coldfusion_shared.evaluate.comparison import Comparison
    from coldfusion_shared.evaluate.results import Evaluated


@dataclass(frozen=True)
class Measured:
    """
    A model and its scores.

    Attributes:
        name: what people call it.
        base: which base it is; null: it is none.
        asked: whether it was asked for, or is only what another one is compared with.
        evaluated: the scores.
        candidate: which candidate it is; null: it is none.
    """

    name: str
    base: Base | None
    asked: bool
    evaluated: Evaluated
    candidate: Candidate | None = None

    @property
    def label(self) -> str:
        """The name, without what the same model's other bases, or other folders, have in common."""
        if self.candidate is not None:
            return label(self.candidate)
        return self.base.version if self.base else last_part(self.name)

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it, without the guesses."""
        found, of = self.evaluated, self.base or self.candidate
        return {
            "name": self.name,
            "model": of and of.model,
            "version": self.base and self.base.version,
            "candidate": self.candidate and self.candidate.id,
            "average": found.average,
            "standard_error": found.standard_error,
            "datasets": [
                {
                    "name": one.name,
                    "metric": one.metric,
                    "seen": one.seen,
                    "score": one.score,
                    "standard_error": one.standard_error,
                    "by_seed": list(one.by_seed),
                    "train": one.train,
                    "pool": one.pool,
                    "with_replacement": one.with_replacement,
                }
                for one in found.results
            ],
        }


@dataclass(frozen=True)
class Outcome:
    """
    What came of it.

    Attributes:
        measured: one model, or two of which the second is compared with the first.
        comparison: of the two.
    """

    measured: tuple[Measured, ...]
    comparison: Comparison | None = None

    @property
    def newest(self) -> Measured:
        """The model that was asked for, the second of two."""
        return self.measured[-1]

    @property
    def labels(self) -> tuple[str, ...]:
        """What the models are called in a table: as short as it can be."""
        short = tuple(one.label for one in self.measured)
        return short if len(set(short)) == len(short) else tuple(one.name for one in self.measured)

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it, without the guesses."""
        found = self.newest.evaluated
        return {
            "suite": found.suite.name,
            "suite_digest": found.suite.digest(),
            "protocol": found.protocol,
            "metric": found.metric,
            "seeds": list(found.seeds),
            "models": [one.document() for one in self.measured],
            "comparison": self.comparison and self.comparison.document(),
        }


def last_part(path: str) -> str:
    """Return the name of a folder, or of a file, without where it is."""
    return Path(path).resolve().name or path
