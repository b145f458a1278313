"""What a candidate has to pass before it is published, and what came of it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, model_validator

from coldfusion_shared.schemas.common import Request, Response, Sha256
from coldfusion_shared.schemas.evaluations import SUITE_NAME

Points = Annotated[FiniteFloat, Field(ge=0, le=100)]


class Gate(Request):
    """What a candidate has to pass. That all its values are finite is checked always."""

    kind: Literal["none", "norm", "suite"] = Field(
        default="none",
        description="none: published at once; norm: the step's length is limited; suite: evaluated "
        "first, beside the base",
    )
    max_relative_norm: Annotated[FiniteFloat, Field(gt=0, le=100)] | None = Field(
        default=None,
        description="the most that the candidate may be away from the base, as a share of the "
        "base's norm; null: any",
    )
    suite: Annotated[str, Field(pattern=SUITE_NAME)] | None = Field(
        default=None, description="name of the registered suite, measured by linear probing"
    )
    tolerance: Points = Field(
        default=0.0, description="points that the mean score may lose beside the base's"
    )
    noise: Annotated[FiniteFloat, Field(ge=0, le=10)] = Field(
        default=1.0,
        description="standard errors of the measured difference that are allowed on top",
    )
    max_noise: Points = Field(
        default=3.0, description="points that are allowed for noise at most, however large it is"
    )
    max_dataset_loss: Points | None = Field(
        default=None,
        description="points that any one data set may lose, beside its noise; null: any",
    )
    max_negative_flips: Points | None = Field(
        default=None,
        description="percent of test examples that the base had right and the candidate has "
        "wrong; null: any",
    )
    min_evaluators: Annotated[int, Field(ge=1, le=100)] = Field(
        default=1, description="evaluators that have to have measured both"
    )
    timeout_seconds: Annotated[int, Field(ge=1, le=366 * 86_400)] = Field(
        default=86_400, description="how long evaluations are waited for"
    )
    on_timeout: Literal["publish", "reject", "wait"] = Field(
        default="wait",
        description="what becomes of a candidate that too few have measured by then; if it failed "
        "by those that have, then or later, it is rejected",
    )

    @model_validator(mode="after")
    def _check_kind(self) -> Gate:
        if self.kind == "suite" and self.suite is None:
            raise ValueError("a gate of kind suite needs the name of a suite")
        if self.kind != "suite":
            for name in ("suite", "max_dataset_loss", "max_negative_flips"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} belongs to a gate of kind suite")
        if self.kind == "norm" and self.max_relative_norm is None:
            raise ValueError("a gate of kind norm needs max_relative_norm")
        if self.kind == "none" and self.max_relative_norm is not None:
            raise ValueError("max_relative_norm belongs to a gate of kind norm or suite")
        return self


class EvaluatorVerdict(Response):
    """What one evaluator, who measured base and candidate, makes of the candidate."""

    evaluator: str
    passed: bool
    reason: str | None = Field(default=None, description="why it did not pass")
    base: float = Field(description="mean score in percent")
    candidate: float = Field(description="mean score in percent")
    difference: float = Field(description="points, candidate less base")
    standard_error: float | None = Field(
        default=None, description="of the difference; null: the reports tell no errors"
    )
    standard_errors: dict[str, float] = Field(
        default={}, description="of the difference, by data set, where the reports tell errors"
    )
    allowed_loss: float = Field(description="points: the tolerance and the noise")
    losses: dict[str, float] = Field(default={}, description="points lost, by data set")
    allowed_losses: dict[str, float] = Field(
        default={}, description="points, by data set; empty: the policy limits none by itself"
    )
    negative_flips: float | None = Field(default=None, description="percent of test examples")


class CandidateScore(Response):
    """A candidate of a line search and what it scored."""

    candidate: str
    server_lr: float
    score: float | None = Field(description="mean over evaluators, in percent; null: not measured")


class GateVerdict(Response):
    """What the gate decided of a round's candidate, by which numbers."""

    kind: Literal["none", "norm", "suite"]
    passed: bool | None = Field(description="null: it waits for evaluations")
    reason: str = Field(description="one sentence")
    decided_at: datetime | None = None
    suite: str | None = None
    suite_digest: Sha256 | None = None
    relative_norm: float | None = Field(
        default=None, description="norm of the step over the base's norm"
    )
    evaluators: list[EvaluatorVerdict] = []
    line_search: list[CandidateScore] = []
