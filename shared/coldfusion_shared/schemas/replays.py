"""Replays: history fused again without some contributions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from coldfusion_shared.replays import ReplayState
from coldfusion_shared.schemas.common import NO_NUL, ModelName, Request, Response, Version
from coldfusion_shared.schemas.rounds import Candidate


class ReplayRequest(Request):
    """What to leave out, and from where on to fuse again."""

    without: Annotated[list[str], Field(min_length=1, max_length=10_000)] = Field(
        description="ids of fused contributions"
    )
    start: Version | None = Field(
        default=None,
        description="the base that stays and is fused onto first; null: the newest that has none "
        "of them in it",
    )
    reason: Annotated[str, Field(max_length=500, pattern=NO_NUL)] | None = Field(
        default=None, description="why; maintainers read it"
    )


class ReplayStep(Response):
    """One base of the old line and what stands in for it."""

    replaces: Version
    candidate: Candidate
    published: Version | None = Field(default=None, description="the base that it became")
    old_score: float | None = Field(
        default=None, description="mean score in percent, by the newest evaluation of both"
    )
    new_score: float | None = None
    suite: str | None = Field(default=None, description="that both were measured with")


class Replay(Response):
    """A new line of bases for review."""

    id: str
    model: ModelName
    state: ReplayState
    without: list[str]
    start: Version
    head: Version = Field(description="the head that it stands in for")
    skipped: list[Version] = Field(
        default=[], description="bases of which nothing is left without those contributions"
    )
    steps: list[ReplayStep]
    total: int = Field(description="bases to fuse again")
    reason: str | None = Field(default=None, description="why it was asked for")
    failure: str | None = Field(
        default=None, description="why the last try failed, or why it was given up"
    )
    by: str | None = Field(description="who asked; null: the operator")
    created_at: datetime
    finished_at: datetime | None
