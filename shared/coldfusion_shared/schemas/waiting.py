"""What waits for a maintainer, as the API shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from coldfusion_shared.schemas.common import ModelName, Response

WaitingKind = Literal[
    "quarantine",
    "set_aside",
    "gate",
    "failed",
    "idle",
    "lacking",
    "by_hand",
    "replay",
    "replay_failed",
    "evaluation",
    "webhook",
]


class WaitingItem(Response):
    """One thing that a maintainer decides on, or has to look after."""

    kind: WaitingKind = Field(
        description="quarantine: a contribution; set_aside: what a rejected round has left; gate: "
        "a candidate that nobody measured in time; failed: a round that is tried again; idle: a "
        "closed round that nothing works on; lacking: a round that is due and has too "
        "little; by_hand: a round that only a maintainer closes, and that has enough; replay: "
        "bases for review; replay_failed: a replay that is tried again; evaluation: what the "
        "Repository's own evaluator has given up; webhook: one that failed for days and is sent "
        "nothing any more"
    )
    model: ModelName
    subject: str = Field(
        description="a contribution's, replay's or webhook's id, a round's number, a version"
    )
    address: str = Field(description="path of the page that shows it")
    sentence: str
    since: datetime


class ModelWaiting(Response):
    """How much of one model waits."""

    model: ModelName
    counts: dict[WaitingKind, int] = Field(
        description="by kind, as far as the caller may know of it"
    )
    sentence: str = Field(description="the same in words")


class Waiting(Response):
    """What waits for maintainers."""

    models: list[ModelWaiting] = Field(
        description="those that the caller may read and of which something waits, by name"
    )
    items: list[WaitingItem] = Field(
        description="of the models that the caller maintains, the oldest first; of each kind a "
        "limited number"
    )
