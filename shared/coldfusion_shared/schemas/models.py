"""Models and their policies."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, model_validator

from coldfusion_shared.schemas.common import EncodingName, ModelName, Response, Version
from coldfusion_shared.schemas.recipes import Recipe


class Policy(Recipe):
    """How a model's rounds close, how they are fused, and what is kept of them."""

    min_contributions: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=2, description="a round never closes by itself with fewer accepted contributions"
    )
    max_contributions: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None,
        description="a round closes at once when it has this many; null: no limit while a "
        "deadline is set, else the minimum",
    )
    deadline_seconds: Annotated[int, Field(ge=1, le=366 * 86_400)] | None = Field(
        default=None,
        description="a round that has its minimum closes this long after it opened; null: no "
        "waiting for time",
    )

    encodings: Annotated[list[EncodingName], Field(min_length=1, max_length=50)] | None = Field(
        default=None,
        description="forms in which updates are taken, such as full, delta-int8 or lora; null: all "
        "that there are",
    )

    keep_contributions: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        default=None,
        description="the newest rounds whose fused contributions' files are kept, 0: none; null: "
        "for ever. All bases are always kept",
    )

    @model_validator(mode="after")
    def _maximum_reaches_minimum(self) -> Policy:
        if self.max_contributions is not None and self.max_contributions < self.min_contributions:
            raise ValueError("max_contributions is smaller than min_contributions")
        return self

    def recipe(self) -> Recipe:
        """Return the part that says how a round is fused."""
        return Recipe.model_validate({name: getattr(self, name) for name in Recipe.model_fields})


class Model(Response):
    """A line of bases with one architecture."""

    name: ModelName
    public: bool = Field(description="whether bases can be read without a token")
    created_at: datetime
    current: Version = Field(description="the newest base; finetune from this one")
    policy: Policy
    open_round: int | None = Field(description="number of the round that takes contributions")
    accepted: int = Field(description="accepted contributions in the open round")
    contributors: int = Field(description="distinct contributors over all rounds")
