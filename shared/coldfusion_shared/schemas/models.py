"""Models and their policies."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, model_validator

from coldfusion_shared.rounds.contradictions import contradictions
from coldfusion_shared.schemas.common import (
    EncodingName,
    ModelName,
    Reason,
    Request,
    Response,
    Text,
    Version,
)
from coldfusion_shared.schemas.gates import Gate
from coldfusion_shared.schemas.recipes import Recipe

Count = Annotated[int, Field(ge=1, le=10_000)]
Share = Annotated[FiniteFloat, Field(gt=0, le=1)]
Rate = Annotated[FiniteFloat, Field(gt=0, le=100)]


class Policy(Recipe):
    """How a model's rounds close, how they are fused and published, and what is kept of them."""

    by_hand: bool = Field(
        default=False,
        description="a round closes only when a maintainer says so, with what it has: "
        "min_contributions and min_contributors are not asked for",
    )
    min_contributions: Count = Field(
        default=2, description="a round never closes by itself with fewer accepted contributions"
    )
    max_contributions: Count | None = Field(
        default=None,
        description="a round closes at once when it has this many; null: no limit while a "
        "deadline is set, else the minimum",
    )
    deadline_seconds: Annotated[int, Field(ge=1, le=366 * 86_400)] | None = Field(
        default=None,
        description="a round that has its minimum closes this long after it opened; null: no "
        "waiting for time",
    )
    min_contributors: Count = Field(
        default=1, description="distinct contributors that a round needs before it closes by itself"
    )
    max_per_contributor: Count | None = Field(
        default=None, description="the most that a round takes of one contributor; null: any number"
    )
    max_per_dataset: Count | None = Field(
        default=None, description="the same of one declared data set"
    )
    max_per_task: Count | None = Field(default=None, description="the same of one declared task")
    max_share_per_contributor: Share | None = Field(
        default=None,
        description="the largest share of a round that may be one contributor's; null: any",
    )
    max_share_per_dataset: Share | None = Field(
        default=None, description="the same of one declared data set"
    )
    max_share_per_task: Share | None = Field(
        default=None, description="the same of one declared task"
    )
    contributor_weights: dict[Text, Annotated[FiniteFloat, Field(ge=0, le=1000)]] = Field(
        default={},
        description="weights of contributors that the maintainers set, by name; others have 1",
    )

    max_staleness: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=4,
        description="the most bases that a contribution may be behind; 0: only the newest base's "
        "are taken",
    )
    after_rollback: Literal["rebase", "refuse"] = Field(
        default="rebase",
        description="what becomes of contributions made from bases that a rollback abandons: taken "
        "as late ones, or refused",
    )

    gate: Gate = Field(default=Gate(), description="what a candidate has to pass")
    line_search: Annotated[list[Rate], Field(max_length=16)] = Field(
        default=[],
        description="server learning rates to try: a candidate of each is evaluated by the gate's "
        "suite, and the best goes on; empty: no search",
    )

    encodings: Annotated[list[EncodingName], Field(min_length=1, max_length=50)] | None = Field(
        default=None,
        description="forms in which updates are taken, such as full, delta-int8 or lora; null: all "
        "that there are",
    )

    screening: dict[Text, dict[Text, Any]] = Field(
        default={},
        description="parameters of screening checks by name; what is not named has its default",
        examples=[{"norm": {"action": "reject"}}],
    )

    keep_contributions: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        default=None,
        description="the newest rounds whose fused contributions' files are kept, 0: none; null: "
        "for ever. All bases are always kept",
    )

    @model_validator(mode="after")
    def _check_contradictions(self) -> Policy:
        for sentence in contradictions(self):
            raise ValueError(sentence)
        return self

    def recipe(self) -> Recipe:
        """Return the part that says how a round is fused."""
        return Recipe.model_validate({name: getattr(self, name) for name in Recipe.model_fields})


class HeadMove(Response):
    """The head went from one base to another: published, rolled back, or a replay's."""

    kind: Literal["published", "rollback", "replay"]
    before: Version | None
    after: Version
    reason: str | None = None
    by: str | None = Field(default=None, description="who decided it; null: the round's policy")
    at: datetime


class RollbackRequest(Request):
    """Where the head is to go, and why."""

    version: Version
    reason: Reason = Field(description="why; everybody reads it")


class Model(Response):
    """A line of bases with one architecture."""

    name: ModelName
    public: bool = Field(description="whether bases can be read without a token")
    created_at: datetime
    current: Version = Field(
        description="the head: finetune from this one. After a rollback it is not the newest"
    )
    newest: Version | None = Field(default=None, description="the base that was published last")
    moved: HeadMove | None = Field(
        default=None, description="how the head came to where it is; null: it never moved"
    )
    policy: Policy
    open_round: int | None = Field(description="number of the round that takes contributions")
    accepted: int = Field(description="accepted contributions in the open round")
    quarantined: int = Field(
        default=0, description="contributions that wait for a maintainer's decision"
    )
    contributors: int = Field(description="distinct contributors over all rounds")


class RolledBack(Response):
    """What came of a rollback."""

    moved: bool = Field(description="false: it is the head already, and nothing was changed")
    before: Version
    after: Version
    cancelled: int | None = Field(
        default=None, description="number of the round that was under way; null: none was"
    )
    late: list[str] = Field(
        default=[], description="ids of what waits and counts otherwise now, for its base's sake"
    )
    refused: list[str] = Field(
        default=[], description="ids of what waited and is too old now, or refused by the policy"
    )
    sentence: str
    model: Model
