"""Who asks, and what they may do."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from coldfusion_shared.schemas.common import ModelName, Response


class Role(StrEnum):
    """What a token allows; each role includes the ones before it, evaluators apart."""

    READER = "reader"
    CONTRIBUTOR = "contributor"
    EVALUATOR = "evaluator"
    MAINTAINER = "maintainer"
    ADMIN = "admin"


class Whoami(Response):
    """The caller, by the token that came with the request."""

    name: str
    role: Role
    expires_at: datetime | None = Field(description="null: the token does not expire")
    models: list[ModelName] | None = Field(
        default=None, description="the models that the role is for; null: all"
    )
