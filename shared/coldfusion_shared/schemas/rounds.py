"""Rounds, as the API shows them."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.common import ModelName, Response, Version


class Round(Response):
    """One iteration: contributions in, one new base out."""

    model: ModelName
    number: int
    state: RoundState
    base: Version = Field(description="the base that its contributions are made from")
    result: Version | None = Field(description="the base that it published")
    opened_at: datetime
    closed_at: datetime | None
    finished_at: datetime | None
    closes_at: datetime | None = Field(
        description="when it closes by its deadline, if it has enough contributions by then"
    )
    accepted: int = Field(description="contributions accepted so far")
    waiting: int = Field(description="contributions declared or being screened")
    missing: int = Field(description="accepted contributions that it still needs to close")
    fused_bytes: int = Field(description="bytes of contributions read so far, while fusing")
    total_bytes: int = Field(description="bytes of contributions to read; some methods read twice")
    reason: str | None = Field(description="why it failed or was cancelled or rejected")
