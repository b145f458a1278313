"""Who uses how much of the store."""

from __future__ import annotations

from pydantic import Field

from coldfusion_shared.schemas.common import ModelName, Response


class ContributorUsage(Response):
    """What one contributor has stored and on the way."""

    contributor: str
    contributions: int = Field(default=0, description="contributions that are kept")
    kept_bytes: int = Field(
        default=0, description="bytes of those; a file that was sent twice counts once"
    )
    uploads: int = Field(default=0, description="unfinished uploads")
    unfinished_bytes: int = Field(default=0, description="bytes that those will have")


class OwnUsage(ContributorUsage):
    """What the caller has stored and on the way, and how much that may be."""

    quota_bytes: int | None = Field(
        description="what kept and unfinished bytes may be together; null: any"
    )
    quota_uploads: int | None = Field(description="what unfinished uploads may be; null: any")
    day_contributions: int = Field(default=0, description="declared in the last 24 hours")
    day_bytes: int = Field(default=0, description="bytes of those")
    quota_day: int | None = Field(
        default=None, description="what day_contributions may be; null: any"
    )
    quota_day_bytes: int | None = Field(
        default=None, description="what day_bytes may be; null: any"
    )
    quota_round: int | None = Field(
        default=None, description="contributions to one round; null: any"
    )


class ModelUsage(Response):
    """What a model takes. What garbage collection will remove is not counted."""

    model: ModelName
    bases: int
    base_bytes: int = Field(
        description="bytes of all bases, with what the next fuse needs; shared files count once"
    )
    contributions: int = Field(description="contributions that are kept")
    kept_bytes: int = Field(description="bytes of those; shared files count once")
    uploads: int = Field(description="unfinished uploads")
    unfinished_bytes: int = Field(description="bytes that those will have")
    contributors: list[ContributorUsage] = Field(description="the largest first")
    damaged: list[str] = Field(
        default=[],
        description="a sentence on each base whose manifest was changed in the database: of those "
        "only what people pull is counted",
    )


class Usage(Response):
    """What everything takes."""

    total_bytes: int = Field(description="bytes of all models; what they share counts once")
    models: list[ModelUsage]
    contributors: list[ContributorUsage] = Field(description="the largest first")
