"""What happened, in order."""

from __future__ import annotations

from datetime import datetime
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
