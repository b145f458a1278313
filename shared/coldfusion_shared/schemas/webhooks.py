"""Webhooks: where events are sent to, and what became of each."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

from coldfusion_shared.event_types import fitting
from coldfusion_shared.schemas.common import ModelName, Request, Response
from coldfusion_shared.webhooks import DeliveryState


class WebhookFormat(StrEnum):
    """What is posted."""

    COLDFUSION = "coldfusion"
    GITHUB = "github"


_HEADER = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_PATTERN = re.compile(r"\*|[a-z]+\.(\*|[a-z_]+)")


def _check_pattern(pattern: str) -> str:
    if not _PATTERN.fullmatch(pattern) or not fitting(pattern):
        raise ValueError(
            "there is no such event; write a type such as base.published, all of a kind such as "
            "round.*, or * for all"
        )
    return pattern


Pattern = Annotated[
    str,
    StringConstraints(max_length=60),
    AfterValidator(_check_pattern),
]


def check_header(value: str) -> str:
    """Return `value` if it can be a header's, else raise `ValueError`, which does not repeat it."""
    # No line ends, which would begin another header.
    if not _HEADER.fullmatch(value):
        raise ValueError("it has other characters than a header can have, or blanks at its ends")
    return value


Patterns = Annotated[
    list[Pattern],
    Field(
        min_length=1,
        max_length=50,
        description="types of events, such as base.published, or all of a kind, such as round.*; "
        "*: all",
        examples=[["base.published", "round.*"]],
    ),
]
Address = Annotated[
    str,
    StringConstraints(min_length=1, max_length=2000),
    Field(
        description="where to post to; what stands behind a question mark is never shown",
        examples=["https://ci.example.org/hooks/coldfusion"],
    ),
]
Authorization = Annotated[
    str,
    StringConstraints(max_length=1000),
    AfterValidator(check_header),
    Field(description="value of an Authorization header to send along; never shown"),
]


class WebhookRequest(Request):
    """A webhook that is wanted."""

    model: ModelName | None = Field(
        default=None,
        description="whose events; null: those of all public models, and those of none; for admins",
    )
    url: Address
    events: Patterns = ["base.published"]
    format: WebhookFormat = Field(
        default=WebhookFormat.COLDFUSION,
        description="coldfusion: the event; github: a repository_dispatch with the event in it",
    )
    authorization: Authorization | None = None


class WebhookChange(Request):
    """What is to be another one; what is left out stays."""

    url: Address | None = Field(
        default=None, description="on another server the Authorization header does not go along"
    )
    events: Patterns | None = None
    format: WebhookFormat | None = None
    authorization: Authorization | None = Field(default=None, description="null: none any more")
    active: bool | None = Field(
        default=None,
        description="whether events are sent; what happens meanwhile is not sent later",
    )


class Webhook(Response):
    """A webhook, without its secret."""

    id: str
    model: ModelName | None = Field(description="null: all public models")
    url: str | None = Field(
        description="without what stands behind a question mark; null: it cannot be read any more"
    )
    events: list[str]
    format: WebhookFormat
    has_authorization: bool = Field(description="whether an Authorization header is sent along")
    active: bool
    paused_at: datetime | None = Field(
        description="when the Repository gave it up, after days of failures; null: it did not"
    )
    failures: int = Field(description="tries that failed since the last that went well")
    failing_since: datetime | None
    waiting: int = Field(description="deliveries that are still to be made")
    created_by: str | None = Field(description="a contributor; null: the operator")
    created_at: datetime


class WebhookSecret(Response):
    """A webhook with the secret that it signs with."""

    webhook: Webhook
    secret: str = Field(description="shown this once", examples=["whsec_MfKQ9r8G…"])


class Delivery(Response):
    """One event for one webhook, and what became of it."""

    id: str = Field(description="webhook-id, the same at every try")
    webhook: str
    model: ModelName | None = Field(description="of the webhook; null: all public models")
    event: int | None = Field(description="the event's id; null: a ping")
    type: str
    state: DeliveryState = Field(
        description="waiting: not tried yet; failed: it is tried again; given_up: it is not"
    )
    attempts: int
    next_try_at: datetime | None
    tried_at: datetime | None
    status: int | None = Field(description="HTTP status of the last answer; null: there was none")
    error: str | None = Field(description="why the last try failed, in a sentence")
    seconds: float | None = Field(description="how long the last try took")
    created_at: datetime
    finished_at: datetime | None
    body: dict[str, Any] | None = Field(
        default=None, description="what is posted; only where one delivery is asked for"
    )
