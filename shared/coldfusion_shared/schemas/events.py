"""What happened, in order."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Any

from pydantic import Field

from coldfusion_shared.schemas.common import Response


class Event(Response):
    """One thing that happened. Ids only grow, so the last one seen is where to go on."""

    id: int
    type: str = Field(examples=["base.published"])
    model: str | None
    at: datetime
    data: dict[str, Any]

    @cached_property
    def json_text(self) -> str:
        """The event as JSON; all that watch are sent the same, made once."""
        return self.model_dump_json()
