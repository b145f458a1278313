"""Whether several evaluators of one base agree."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from coldfusion_shared.schemas.common import Response, Sha256


class EvaluatorAgreement(Response):
    """An evaluator's newest scores, beside the median of all who measured the same."""

    evaluator: str
    average: float = Field(description="percent")
    standard_error: float | None = Field(default=None, description="of the average, in points")
    difference: float = Field(description="of the average from the median, in points")
    standard_errors: float | None = Field(
        default=None, description="the difference in its own standard errors; null: not known"
    )
    datasets: dict[str, float] = Field(
        default={}, description="data sets that differ by themselves: points from their median"
    )
    outlier: bool | None = Field(
        default=None,
        description="whether the average or a data set differs by more than chance explains; of "
        "two evaluators both do or none; null: nobody can tell without standard errors",
    )
    software: str | None = None
    created_at: datetime


class Agreement(Response):
    """All who measured one base with one suite, by one protocol."""

    suite: str
    suite_digest: Sha256 | None = Field(default=None, description="null: the suite is not pinned")
    protocol: str
    metric: str
    median: float = Field(description="of the evaluators' averages, in percent")
    evaluators: list[EvaluatorAgreement]
