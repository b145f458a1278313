"""Contributions: declaration, upload plan, receipt."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, FiniteFloat

from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.schemas.common import (
    EncodingName,
    FilePath,
    ModelName,
    Reason,
    Request,
    Response,
    Sha256,
    Text,
    Version,
)
from coldfusion_shared.schemas.files import FileEntry

Verdict = Literal["pass", "warn", "quarantine", "reject"]


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
        description="length of the encoding's error, over the update's length",
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


# From the mildest to the worst.
VERDICTS: tuple[Verdict, ...] = ("pass", "warn", "quarantine", "reject")


class Finding(Response):
    """What one screening check has to say."""

    check: str
    verdict: Verdict = Field(
        description="warn: it is taken with this remark; quarantine: it waits for a maintainer"
    )
    message: str = Field(description="one sentence for the contributor")
    measured: FiniteFloat | None = Field(
        default=None, description="what the check measured; null: no number decides"
    )
    limit: FiniteFloat | None = Field(
        default=None, description="what it was compared with; null: nothing to compare with yet"
    )
    tensors: list[str] = Field(default=[], description="tensors at fault, ten at most")


def worst(findings: Iterable[Finding]) -> Verdict:
    """Return the verdict of a screening: the worst of its findings'."""
    return max((finding.verdict for finding in findings), key=VERDICTS.index, default="pass")


class Effect(Response):
    """What something did to a base: mean scores in percent, over the data sets of a suite."""

    suite: str
    base: float
    score: float = Field(description="with it")
    difference: float = Field(description="points that it gained")
    standard_error: float | None = Field(
        default=None, description="of the difference; null: the evaluators tell no errors"
    )


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
    decided_by: str | None = Field(
        default=None,
        description="the maintainer who released it from quarantine, or rejected it there; null: "
        "nobody had to",
    )
    decision: str | None = Field(default=None, description="why, in the maintainer's words")
    staleness: int | None = Field(
        default=None, description="bases that it was behind when its round closed"
    )
    factor: float | None = Field(default=None, description="of its update, for being late")
    carried: int = Field(default=0, description="times that it was moved on to a later round")
    weight: float | None = Field(description="its weight in the fuse")
    cosine: float | None = Field(
        default=None,
        description="between its update and the mean of those of its round, as they were weighted",
    )
    norm_ratio: float | None = Field(
        default=None,
        description="length of its update over the median of those of its round, as they were "
        "fused",
    )
    round_effect: Effect | None = Field(
        default=None, description="of all that its round fused, as the gate measured it"
    )
    own_effect: Effect | None = Field(
        default=None, description="of its update alone; null: the policy does not ask for it"
    )
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


class Prospect(Response):
    """What will become of a contribution, as things stand when it is declared."""

    round: int = Field(description="the round that it will go into")
    staleness: int = Field(description="bases that it will be behind")
    factor: float = Field(description="of its update, for being late; 1: in time")
    sentence: str


class Declared(Response):
    """The answer to a declaration: the receipt, what will become of it, where to send the bytes."""

    contribution: Contribution
    prospect: Prospect | None = None
    upload: UploadPlan


class Withdrawal(Request):
    """Take a contribution back."""

    reason: Text | None = Field(
        default=None, description="why; a maintainer who removes another's has to say it"
    )
    erase: bool = Field(
        default=False, description="whether its stored weights are given up at once"
    )


class Withdrawn(Response):
    """What a withdrawal did, and what it cannot undo."""

    contribution: Contribution
    changed: bool = Field(description="false: it was withdrawn before, and nothing was changed")
    contained_in: list[Version] = Field(
        description="bases that it went into, or that were fused onto such a one: they stay"
    )
    sentence: str


class Decision(Request):
    """A maintainer's decision on a contribution in quarantine."""

    reason: Reason = Field(description="why; its contributor reads it")


class Decided(Response):
    """What came of a maintainer's decision."""

    contribution: Contribution
    changed: bool = Field(description="false: it was decided so before, and nothing was changed")
    sentence: str
