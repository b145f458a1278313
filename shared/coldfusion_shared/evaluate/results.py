"""What an evaluation has come to: scores with standard errors, and the guesses behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from pydantic import TypeAdapter, ValidationError

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.evaluate.drawing import pool_share, with_replacement
from coldfusion_shared.evaluate.sound import check_sound
from coldfusion_shared.evaluate.statistics import average_error
from coldfusion_shared.schemas.evaluations import EvaluationReport, ProtocolName, Suite

# One a test example: the index of a label, or a number.
Values = tuple[int | float, ...]


@dataclass(frozen=True)
class DatasetResult:
    """
    What a base reaches on one data set.

    Attributes:
        name: of the data set in its suite.
        metric: what the scores are, in percent.
        seen: whether contributors may have trained on it; null: the suite does not say.
        seeds: each draws the training examples anew, and begins the training anew.
        by_seed: the score of each seed.
        score: the mean of those.
        standard_error: of the score, in points; null where it cannot be told.
        labels: of the test examples, in the test part's order; null for tasks whose examples are
            not scored one by one.
        guesses: those of each seed, in the same order; null likewise.
        train: examples that a seed trains on.
        pool: examples that it draws them from.
        data_digest: SHA-256 (hex) of the whole data, as the suite has it.
    """

    name: str
    metric: str
    seen: bool | None
    seeds: tuple[int, ...]
    by_seed: tuple[float, ...]
    score: float
    standard_error: float | None
    labels: Values | None
    guesses: tuple[Values, ...] | None
    train: int
    pool: int
    data_digest: str

    @property
    def share(self) -> float:
        """What the pool adds to the seeds' variance, as `drawing.pool_share` has it."""
        return pool_share(self.train, self.pool)

    @property
    def with_replacement(self) -> bool:
        """Whether the pool is so small that training examples come several times."""
        return with_replacement(self.train, self.pool)


@dataclass(frozen=True)
class Evaluated:
    """
    What a base reaches on a suite.

    Attributes:
        suite: with all its digests.
        protocol: by which it was measured.
        results: one for each data set, in the suite's order.
    """

    suite: Suite
    protocol: ProtocolName
    results: tuple[DatasetResult, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, which are the same for all data sets."""
        return self.results[0].seeds

    @property
    def average(self) -> float:
        """The plain mean of the data sets' scores, in percent."""
        return sum(result.score for result in self.results) / len(self.results)

    @property
    def standard_error(self) -> float | None:
        """Of the average, in points; null where a data set has none."""
        return average_error([result.standard_error for result in self.results])

    @property
    def metric(self) -> str:
        """What the average is of: the metric, or the metrics that it mixes."""
        return ", ".join(dict.fromkeys(result.metric for result in self.results))

    def report(
        self, software: str, negative_flips: Mapping[str, float] | None = None
    ) -> EvaluationReport:
        """
        Return what is sent to a Repository.

        Args:
            software: program and version that measured.
            negative_flips: of a candidate: percent of test examples that its base has right and it
                has wrong, by data set.
        """
        return EvaluationReport(
            suite=self.suite.name,
            suite_digest=self.suite.digest(),
            protocol=self.protocol,
            metric=self.metric,
            scores={result.name: result.score for result in self.results},
            standard_errors={
                result.name: result.standard_error
                for result in self.results
                if result.standard_error is not None
            },
            by_seed={result.name: list(result.by_seed) for result in self.results},
            seeds=list(self.seeds),
            negative_flips=dict(negative_flips or {}),
            software=software,
        )

    def to_json(self) -> str:
        """Return all of it as a JSON document, from which `from_json` makes it again."""
        return _adapter().dump_json(self, indent=1).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Evaluated:
        """
        Return what `to_json` wrote.

        Raises:
            InvalidRequest: for anything else, and where scores are not those of their guesses.
        """
        try:
            found = _adapter().validate_json(text)
            check_sound(found)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the document"
            raise _no_scores(f"{where}: {first['msg']}") from None
        except ValueError as error:
            raise _no_scores(str(error)) from None
        return found


def _no_scores(reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"These are no scores of an evaluation: {reason}.",
        hint="Give a scores.json as `coldfusion-client evaluate --out` wrote it.",
    )


@lru_cache
def _adapter() -> TypeAdapter[Evaluated]:
    return TypeAdapter(Evaluated)
