"""What one contributor has done, as far as the caller may know; and keeping one out."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.schemas.common import ModelName, Reason, Request, Response, Version
from coldfusion_shared.schemas.contributions import Effect
from coldfusion_shared.schemas.usage import OwnUsage


class ContributedTo(Response):
    """What one contributor has contributed to one model."""

    model: ModelName
    contributions: int
    bases: list[Version] = Field(description="that it was fused into, the newest first")


class Usefulness(Response):
    """How one contribution lay to its round, and what it did."""

    contribution: str
    model: ModelName
    round: int
    declared_at: datetime
    cosine: float | None = Field(
        description="between its update and the mean of its round; null: not known"
    )
    norm_ratio: float | None = Field(
        description="length of its update over the round's median; null: not known"
    )
    own_effect: Effect | None = Field(description="of its update alone; null: not measured")


class Contributor(Response):
    """One contributor, by the contributions to models that the caller may read."""

    name: str
    contributions: int
    states: dict[ContributionState, int] = Field(
        description="contributions in each state; a state that none is in is left out"
    )
    models: list[ContributedTo] = Field(description="by name")
    useful: list[Usefulness] = Field(
        description="contributions of which something is known, the newest 100, the newest first"
    )
    usage: OwnUsage | None = Field(
        default=None,
        description="what is stored and on the way, and the quota; for the contributor and for "
        "maintainers of all models, null for others",
    )


class Block(Request):
    """Why somebody is kept out."""

    reason: Reason = Field(description="why; operators read it, and the audit log")
