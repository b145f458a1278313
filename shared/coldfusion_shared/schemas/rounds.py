"""Rounds, as the API shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, Field

from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.common import (
    ModelName,
    Reason,
    Request,
    Response,
    Sha256,
    Version,
)
from coldfusion_shared.schemas.gates import GateVerdict


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
        description="the time to come at which it closes by its deadline or by hand, if it has "
        "enough by then; null: there is none"
    )
    accepted: int = Field(description="contributions accepted so far")
    waiting: int = Field(description="contributions declared or being screened")
    quarantined: int = Field(
        default=0, description="contributions that wait for a maintainer's decision"
    )
    missing: int = Field(description="accepted contributions that it still needs to close")
    missing_contributors: int = Field(
        default=0, description="further distinct contributors that it still needs to close"
    )
    needs: str | None = Field(
        default=None, description="what an open round still waits for, in a sentence"
    )
    gate: GateVerdict | None = Field(
        default=None, description="what the gate decided, or what it waits for"
    )
    candidates: list[str] = Field(
        default=[], description="ids of its fused candidates; more than one in a line search"
    )
    fused_bytes: int = Field(description="bytes of contributions read so far, while fusing")
    total_bytes: int = Field(description="bytes of contributions to read; some methods read twice")
    reason: str | None = Field(
        description="why it failed, was cancelled or rejected, or did not close when it was due"
    )


class CloseRequest(Request):
    """Close a round by hand."""

    at: AwareDatetime | None = Field(default=None, description="when; null: now")


class CancelRequest(Request):
    """End a round without a base; what it had accepted goes on to the next one."""

    reason: Reason = Field(description="why; everybody reads it")


class AgainRequest(Request):
    """Have a rejected round's contributions fused again, in the open round."""

    without: Annotated[list[str], Field(max_length=10_000)] = Field(
        default=[], description="ids of contributions to leave out; they are rejected"
    )
    reason: Reason | None = Field(default=None, description="why those are left out")


class FusedAgain(Response):
    """What became of what a rejected round had set aside."""

    round: Round = Field(description="the one that has them now")
    accepted: list[str] = Field(description="ids of those that are fused again")
    left_out: list[str] = Field(description="ids of those that were to be left out")
    too_old: list[str] = Field(description="ids of those whose base is too old by now")


class Candidate(Response):
    """A fused base before publication."""

    id: str
    model: ModelName
    round: int | None = Field(description="the round that made it; null: a replay did")
    replay: str | None = None
    step: int = Field(default=0, description="place in its replay, from 1")
    server_lr: float | None = Field(default=None, description="of a line search")
    relative_norm: float | None = Field(
        default=None, description="norm of the step over the norm of what it was added to"
    )
    distance: float | None = Field(
        default=None, description="of a replay's: from the base that it stands in for, relative"
    )
    base: Version = Field(description="what it was fused onto, or stands in for")
    digest: Sha256 = Field(description="of its manifest")
    manifest: Manifest
    created_at: datetime
