"""Suites, and what evaluators measured of bases with them."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, FiniteFloat, model_validator

from coldfusion_shared.schemas.common import (
    NO_NUL,
    Reason,
    Request,
    Response,
    Sha256,
    Text,
    Version,
)

ProtocolName = Literal["frozen", "finetuned", "few-shot"]
# As data folders are called: people's own names, in any script.
DatasetName = Annotated[str, Field(min_length=1, max_length=100, pattern=NO_NUL)]
Score = Annotated[FiniteFloat, Field(ge=-100, le=100, description="percent")]
Error = Annotated[FiniteFloat, Field(ge=0, le=200, description="points")]
Examples = Annotated[int, Field(ge=0, le=10**9)]
MOST_DATASETS, MOST_SEEDS = 200, 100
# What the Repository's own evaluations are signed with; nobody else may be called so.
OWN_EVALUATOR = "repository"

SUITE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class SuiteDataset(Request):
    """One data set of a suite, as far as scores depend on it."""

    name: DatasetName
    task: Text
    metric: Text
    labels: Examples = Field(description="how many there are; 0: the task has none")
    seen: bool | None = Field(
        default=None, description="whether contributors may have trained on it; null: not said"
    )
    train: Examples = Field(description="examples that one seed trains on")
    validation: Examples
    test: Examples = Field(description="examples that are scored")
    digest: Sha256 = Field(description="of the whole data, as read: task, labels, examples")


class Suite(Request):
    """Data sets, limits and settings; scores are comparable where the digest is the same."""

    name: Annotated[str, Field(pattern=SUITE_NAME)]
    datasets: Annotated[list[SuiteDataset], Field(min_length=1, max_length=MOST_DATASETS)]
    max_length: Annotated[int, Field(ge=4)] = Field(description="tokens of an example")
    seed: Annotated[int, Field(ge=0)] = Field(description="fixes which examples are scored")
    few_shot: Annotated[int, Field(ge=1)] = Field(description="examples of the few-shot protocol")
    training: dict[Text, float | int | str | bool | None] = Field(
        default={}, description="settings of finetuned and few-shot that differ from the usual"
    )

    @property
    def metric(self) -> str:
        """What an average over its data sets is of: their metric, or those that it mixes."""
        return ", ".join(dict.fromkeys(dataset.metric for dataset in self.datasets))

    def digest(self) -> str:
        """Return the SHA-256 (hex) of all but the name: sorted keys, no spaces, UTF-8."""
        data = self.model_dump(mode="json", exclude={"name"})
        text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @model_validator(mode="after")
    def _check_names(self) -> Suite:
        names = [dataset.name for dataset in self.datasets]
        if len(set(names)) != len(names):
            raise ValueError("two data sets have one name")
        return self


class RegisteredSuite(Response):
    """A suite that the Repository knows; what a name stands for never changes."""

    name: str
    digest: Sha256
    suite: Suite
    registered_by: str
    created_at: datetime


class EvaluationReport(Request):
    """Scores that an evaluator measured of one base, in percent."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "suite": "text-10",
                    "protocol": "frozen",
                    "metric": "accuracy",
                    "scores": {"film reviews": 84.2, "question types": 77.9},
                    "standard_errors": {"film reviews": 0.9, "question types": 1.3},
                }
            ]
        }
    )

    suite: Annotated[str, Field(min_length=1, max_length=100, pattern=NO_NUL)]
    suite_digest: Sha256 | None = Field(
        default=None,
        description="of the registered suite; without it nobody can tell which data it were",
    )
    protocol: ProtocolName = Field(description="frozen: linear probing of the body")
    metric: Text = "accuracy"
    scores: Annotated[
        dict[DatasetName, Score],
        Field(
            min_length=1,
            max_length=MOST_DATASETS,
            description="score in percent by data set, the mean over seeds",
        ),
    ]
    standard_errors: dict[DatasetName, Error] = Field(
        default={},
        description="of the scores, in points: of seeds and of test examples together; needed "
        "where the suite is pinned and there are two seeds or more",
    )
    by_seed: dict[DatasetName, Annotated[list[Score], Field(max_length=MOST_SEEDS)]] = Field(
        default={},
        description="each seed's score, in the order of `seeds`; needed where the suite is pinned",
    )
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MOST_SEEDS)] = []
    negative_flips: dict[DatasetName, Annotated[FiniteFloat, Field(ge=0, le=100)]] = Field(
        default={},
        description="of a candidate: percent of test examples that its base had right and it has "
        "wrong, by data set, the mean over seeds",
    )
    software: Text | None = Field(default=None, description="program and version that measured")

    @model_validator(mode="after")
    def _check_parts(self) -> EvaluationReport:
        for part in (self.standard_errors, self.by_seed, self.negative_flips):
            if unknown := sorted(part.keys() - self.scores.keys()):
                raise ValueError(f"there is no score of {unknown[0]!r}")
        if any(len(found) != len(self.seeds) for found in self.by_seed.values()):
            raise ValueError("by_seed has a score for each of the seeds")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("a seed is given twice")
        return self


class EvaluateRequest(Request):
    """Have the Repository's own evaluator measure a base once more."""

    reason: Reason | None = Field(default=None, description="why; kept in the audit log")


class EvaluationAsked(Response):
    """What came of asking for a measurement."""

    version: Version
    changed: bool = Field(description="false: it waits to be measured already")
    sentence: str


class Evaluation(Response):
    """An evaluator's scores of one base, or of one candidate."""

    version: Version | None = Field(description="null: of a candidate that is no base")
    candidate: str | None = None
    suite: str
    suite_digest: Sha256 | None = None
    protocol: str
    metric: str
    scores: dict[str, float]
    standard_errors: dict[str, float] = {}
    by_seed: dict[str, list[float]] = {}
    seeds: list[int] = []
    negative_flips: dict[str, float] = {}
    average: float = Field(description="plain mean of the scores")
    standard_error: float | None = Field(
        default=None, description="of the average, in points; null where a data set has none"
    )
    software: str | None = None
    evaluator: str
    created_at: datetime
