"""Who decided what, when and why."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from coldfusion_shared.schemas.common import Response

_TIME = "2026-06-01T12:00:00.000000Z"


class AuditEntry(Response):
    """One decision. Its digest is of all other fields, so also of all entries before it."""

    number: int = Field(description="from 1, without a gap")
    # A text, because its letters are hashed.
    at: str = Field(description="in UTC, to the microsecond", examples=[_TIME])
    by: str = Field(description="a contributor; operator: whoever was at the server's command line")
    token: str | None = Field(description="id of the token that was used; null: none was needed")
    action: str = Field(examples=["model.policy"])
    model: str | None = Field(description="null: it is no model's")
    subject: str | None = Field(description="id, number or name of what it was about")
    reason: str | None
    data: dict[str, Any]
    previous: str = Field(description="SHA-256 of the entry before; of the first one: zeros")
    sha256: str = Field(description="of all other fields, as canonical JSON")
