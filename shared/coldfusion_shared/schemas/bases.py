"""Bases, their manifests, and what evaluators measured of them."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Literal

from pydantic import Field, FiniteFloat

from coldfusion_shared.schemas.common import (
    EncodingName,
    FilePath,
    ModelName,
    Response,
    Sha256,
    Version,
)
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.schemas.recipes import Recipe

WEIGHTS_FILE = "model.safetensors"
# A smaller file is brought whole before anybody has asked for its difference.
DIFFERENCE_BYTES = 2**20


class ParentBase(Response):
    """The base that a base was fused onto."""

    version: Version
    digest: Sha256 = Field(description="digest of the parent's manifest")


class FusedContribution(Response):
    """One input of a fuse, in the order in which it was taken."""

    id: str
    contributor: str
    encoding: EncodingName = "full"
    relative_error: FiniteFloat | None = Field(
        default=None,
        description="length of the encoding's error, over the update's, as measured before sending",
    )
    files: list[FileEntry]
    base: ParentBase | None = Field(
        default=None, description="what it was made from; null: the base that was fused onto"
    )
    staleness: int = Field(default=0, description="bases that it was behind")
    prior: float = Field(default=1.0, description="weight that the maintainers set")
    weight: float | None = Field(
        description="factor of its update in the fused update, over tensors the mean by their "
        "sizes; null where the method works value by value"
    )


class Manifest(Response):
    """All that a base is made of and from; its digest names the base."""

    format: Literal[1] = 1
    model: ModelName
    version: Version
    created_at: datetime
    files: list[FileEntry]
    parent: ParentBase | None = Field(description="null for v0")
    round: int | None = Field(description="number of the round; null for v0")
    recipe: Recipe | None = Field(default=None, description="how it was fused; null for v0")
    server_lr: float | None = Field(
        default=None, description="factor of the fused update that was in force; null for v0"
    )
    step_factor: float | None = Field(
        default=None, description="what the cap on the step scaled it by; null: by nothing"
    )
    contributions: list[FusedContribution] = []
    master: list[FileEntry] = Field(
        default=[],
        description="the weights in float32, which the next round is fused onto; empty where the "
        "published weights are no coarser",
    )
    optimizer_state: list[FileEntry] = Field(
        default=[], description="the server optimizer's tensors, by <name>/<weights file>"
    )
    optimizer_steps: int = Field(default=0, description="steps that the server optimizer has made")
    replays: Version | None = Field(
        default=None, description="the base that it stands in for, fused again"
    )
    without: list[str] = Field(
        default=[], description="ids of the contributions that a replay left out"
    )
    source: str | None = Field(default=None, description="where v0 came from")
    software: str = Field(description="program and version that wrote it")

    def canonical(self) -> bytes:
        """
        Return the one byte string that the digest is taken of: sorted keys, no spaces, UTF-8.

        What has its default is left out, so that a field that a later version adds changes no
        digest of a base that was there before.
        """
        data = self.model_dump(mode="json", exclude_defaults=True)
        text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return text.encode()

    def digest(self) -> str:
        """Return the SHA-256 of `canonical`, in hexadecimal."""
        return hashlib.sha256(self.canonical()).hexdigest()


class Base(Response):
    """An immutable version of a model."""

    model: ModelName
    version: Version
    digest: Sha256 = Field(description="SHA-256 of the canonical manifest")
    current: bool = Field(description="whether it is the head")
    created_at: datetime
    distance: float | None = Field(
        default=None,
        description="of the weights from v0's: the Euclidean norm of what moved over the norm of "
        "v0; null: not measured yet",
    )
    manifest: Manifest


class Difference(Response):
    """By what a file of a base differs from the same one of its parent, as a stored file."""

    path: FilePath
    old_sha256: Sha256 = Field(description="the parent's file")
    new_sha256: Sha256 = Field(description="this base's file")
    size: int = Field(description="bytes of the difference")
    sha256: Sha256 = Field(description="of the difference")
