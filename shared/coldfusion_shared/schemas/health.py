"""How the Repository itself is doing, as the API shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from coldfusion_shared.schemas.common import ModelName, Response

WorkKind = Literal[
    "screening",
    "fusing",
    "replay",
    "evaluation",
    "difference",
    "distance",
    "garbage",
    "other",
]


class Queue(Response):
    """What waits for one kind of work."""

    kind: Literal["uploading", "screening", "fusing", "gates", "replays", "webhooks"] = Field(
        description="uploading: bytes on their way; screening: uploads that are here; fusing: "
        "closed rounds; gates: candidates that wait for evaluations; replays: history to be fused "
        "again; webhooks: events to be sent to active webhooks"
    )
    waiting: int = Field(description="how many, those in work among them")
    in_work: int = Field(description="how many of them somebody works on now, as far as known")
    later: int = Field(description="how many of them wait for a time to be tried again")
    oldest: datetime | None = Field(description="since when the oldest one waits; null: none does")


class Holding(Response):
    """A lease: who works on what. One that nobody renews runs out."""

    kind: WorkKind
    subject: str = Field(description="what is worked on, in words")
    address: str | None = Field(description="path of the page that shows it; null: there is none")
    holder: str = Field(description="the process: machine, number, and a random part")
    fencing: int = Field(description="how often it has changed hands")
    expires_at: datetime
    live: bool = Field(description="whether it is held now")
    stuck: bool = Field(
        description="it ran out while there was work to do, and nobody has taken that up since"
    )


class PartSeen(Response):
    """A part of the Repository, as far as its signs of life are seen from here."""

    part: Literal["scheduler", "worker", "evaluator"]
    seen: bool = Field(description="whether its signs of life can be seen from this process at all")
    well: bool | None = Field(description="null: not known")
    told: str = Field(description="one sentence")
    worked_at: datetime | None = Field(
        description="when one of its kind last held a lease; null: never, or long ago"
    )


class Failure(Response):
    """Something that failed, and why."""

    what: str = Field(description="what failed, in words")
    model: ModelName | None
    address: str | None = Field(description="path of the page that shows it; null: there is none")
    reason: str
    tries: int
    at: datetime | None = Field(description="when it failed; null: not kept")
    again_at: datetime | None = Field(
        description="when it is tried again; null: at once, by somebody's hand, or never"
    )


class ModelStorage(Response):
    """What one model takes."""

    model: ModelName
    base_bytes: int
    kept_bytes: int = Field(description="of contributions")
    unfinished_bytes: int = Field(description="of uploads on their way")


class Storage(Response):
    """What is stored, and how much room there is."""

    kind: Literal["folder", "bucket"]
    total_bytes: int = Field(description="of all models; what they share counts once")
    free_bytes: int | None = Field(description="null: the store does not tell")
    reserve_bytes: int = Field(description="no upload is taken while less than this is free")
    models: list[ModelStorage] = Field(description="the largest first")
    damaged: list[str] = Field(
        description="a sentence on each base whose manifest was changed in the database"
    )
    collected_at: datetime | None = Field(
        description="when garbage collection was at work last; null: never"
    )


class Stream(Response):
    """The event stream of the process that answers."""

    watchers: int
    newest: int = Field(description="id of the newest event in the database")
    behind: int = Field(description="events that this process has not handed out yet")


class DatabaseState(Response):
    """The database."""

    kind: str = Field(description="sqlite or postgresql")
    bytes: int | None = Field(description="its size; null: not known")
    revision: str | None
    newest_revision: str = Field(description="that this version needs")


class Look(Response):
    """What one look has found; none of them writes anything."""

    subject: str
    ok: bool
    message: str
    hint: str | None


class Work(Response):
    """What is done, what waits and what failed, at one moment."""

    at: datetime
    queues: list[Queue]
    leases: list[Holding] = Field(description="live and stuck ones first, then the latest others")
    parts: list[PartSeen]
    failures: list[Failure] = Field(description="what is not mended yet, the latest first")
    stream: Stream


class Health(Response):
    """How the Repository is doing."""

    version: str
    work: Work
    storage: Storage
    database: DatabaseState
    looks: list[Look]
