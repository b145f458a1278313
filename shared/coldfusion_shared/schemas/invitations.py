"""Invitations: codes that make somebody a contributor, once."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from coldfusion_shared.schemas.common import ModelName, Request, Response
from coldfusion_shared.schemas.tokens import Role

DAY = 24 * 3600
DEFAULT_SECONDS = 7 * DAY
LONGEST_SECONDS = 366 * DAY
# Longer than anybody waits for; what is to be good for ever has none.
LONGEST_TOKEN_SECONDS = 100 * LONGEST_SECONDS

ContributorName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_]([A-Za-z0-9._-]{0,98}[A-Za-z0-9_])?$"),
    Field(description="a contributor's name", examples=["alice"]),
]


class InvitationState(StrEnum):
    """What becomes of an invitation; of an open one alone the code is good."""

    OPEN = "open"
    USED = "used"
    EXPIRED = "expired"
    REVOKED = "revoked"


class InvitationRequest(Request):
    """What the token will be that the invitation is for."""

    role: Role = Role.CONTRIBUTOR
    models: list[ModelName] | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="the models that the role is for; null: all",
    )
    name: ContributorName | None = Field(
        default=None, description="who joins; null: whoever has the code, under a new name"
    )
    valid_seconds: int = Field(
        default=DEFAULT_SECONDS, ge=60, le=LONGEST_SECONDS, description="how long the code is good"
    )
    token_seconds: Annotated[int, Field(ge=60, le=LONGEST_TOKEN_SECONDS)] | None = Field(
        default=None, description="how long the token will be good; null: for ever"
    )


class Invitation(Response):
    """An invitation, without its code."""

    id: str
    state: InvitationState
    role: Role
    models: list[ModelName] | None = Field(description="null: all")
    name: str | None = Field(description="who is invited; null: whoever has the code")
    token_seconds: int | None = Field(description="null: the token will not expire")
    made_by: str | None = Field(description="a contributor; null: the operator")
    created_at: datetime
    expires_at: datetime
    joined: str | None = Field(description="the contributor who has used it")


class Invited(Response):
    """A new invitation."""

    invitation: Invitation
    code: str = Field(description="shown this once")


class Join(Request):
    """Who uses an invitation."""

    code: Annotated[str, StringConstraints(max_length=200)]
    name: ContributorName | None = Field(
        default=None, description="the name to go by, where the invitation does not say it"
    )


class Joined(Response):
    """The token of a new contributor."""

    token: str = Field(description="shown this once")
    name: str
    role: Role
    models: list[ModelName] | None = Field(description="null: all")
    expires_at: datetime | None = Field(description="null: the token does not expire")
