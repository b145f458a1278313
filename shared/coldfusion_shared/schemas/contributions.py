"""Contributions: declaration, upload plan, receipt."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, FiniteFloat

from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.schemas.common import (
    EncodingName,
    FilePath,
    ModelName,
    Request,
    Response,
    Sha256,
    Text,
    Version,
)
from coldfusion_shared.schemas.files import FileEntry


class Work(Request):
    """What the contributor says of the work. It is shown, never believed."""

    task: Text | None = Field(default=None, description="kind of task", examples=["classification"])
    dataset: Text | None = Field(
        default=None, description="the data set's name, if it may be known"
    )
    examples: Annotated[int, Field(ge=0, le=2**50)] | None = None
    languages: Annotated[list[Text], Field(max_length=50)] = []
    metric: Text | None = None
    score_before: FiniteFloat | None = Field(default=None, description="of the base, in percent")
    score_after: FiniteFloat | None = Field(default=None, description="finetuned, in percent")
    score_decoded: FiniteFloat | None = Field(
        default=None, description="finetuned, encoded and decoded again, in percent"
    )
    relative_error: FiniteFloat | None = Field(
        default=None,
        description="length of what the encoding lost of the update, over the update's length",
    )
    cosine: FiniteFloat | None = Field(
        default=None, description="between the update and what it decodes to"
    )
    settings: Annotated[
        dict[Annotated[str, Field(max_length=100)], int | float | bool | Text | None],
        Field(max_length=50),
    ] = {}
    client: Text | None = Field(default=None, description="program and version")


class Declaration(Request):
    """The announcement of a contribution, before its first byte."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "base": "v3",
                    "encoding": "full",
                    "files": [{"path": "model.safetensors", "size": 90866384, "sha256": "4a" * 32}],
                    "work": {
                        "task": "classification",
                        "dataset": "film reviews",
                        "examples": 800,
                        "metric": "accuracy",
                        "score_before": 71.3,
                        "score_after": 88.1,
                    },
                }
            ]
        }
    )

    base: Version = Field(description="the base that it was finetuned from")
    encoding: EncodingName = Field(
        default="full",
        description="the form of the update; full: the body's weights themselves",
    )
    frozen: Annotated[list[Text], Field(max_length=1000)] = Field(
        default=[],
        description="patterns of names of tensors and modules that were not trained; full weights "
        "may come without them",
    )
    files: Annotated[
        list[FileEntry],
        Field(
            min_length=1,
            max_length=32,
            description="the encoding's own; small files of the model folder may come along, and "
            "those that the base has, too, are not uploaded",
        ),
    ]
    weights_sha256: Sha256 | None = Field(
        default=None,
        description="of the finetuned body as it was before it was encoded, or put onto another "
        "base: the same weights count once, in whatever form they come",
    )
    work: Work = Work()


class Finding(Response):
    """What one screening check has to say."""

    check: str
    verdict: Literal["pass", "warn", "reject"]
    message: str = Field(description="one sentence for the contributor")
    tensors: list[str] = Field(default=[], description="tensors at fault, ten at most")


class Contribution(Response):
    """One upload and what became of it: the contributor's receipt."""

    id: str
    model: ModelName
    round: int
    base: Version
    contributor: str
    state: ContributionState
    encoding: EncodingName
    frozen: list[str] = Field(default=[], description="what was declared as not trained")
    files: list[FileEntry]
    work: Work
    declared_at: datetime
    completed_at: datetime | None
    decided_at: datetime | None
    expires_at: datetime = Field(description="when an unfinished upload is given up")
    uploaded_bytes: int = Field(description="bytes that have arrived")
    total_bytes: int
    reason: str | None = Field(description="why it was not accepted")
    hint: str | None = Field(description="what to do about it")
    findings: list[Finding]
    weight: float | None = Field(description="its weight in the fuse")
    result: Version | None = Field(description="the base that it went into")
    erased_at: datetime | None = Field(
        default=None, description="when its bytes were given up; null: they are kept"
    )


class Part(Response):
    """One part of a file, and where to PUT it."""

    number: int = Field(ge=1)
    size: int = Field(description="bytes; the last part may be shorter than the others")
    uploaded: bool
    etag: str | None = Field(description="the store's name for the content that arrived")
    url: str | None = Field(
        description="signed, good for this part alone, until the plan expires; null: already here"
    )


class FileUpload(Response):
    """How one file is to be uploaded. Part n starts at byte (n - 1) * part_size."""

    path: FilePath
    size: int
    part_size: int
    parts: list[Part]


class UploadPlan(Response):
    """Where the bytes go. Ask again for fresh URLs and to see what has arrived."""

    contribution: str
    expires_at: datetime
    files: list[FileUpload]


class Declared(Response):
    """The answer to a declaration: the receipt and where to send the bytes."""

    contribution: Contribution
    upload: UploadPlan
