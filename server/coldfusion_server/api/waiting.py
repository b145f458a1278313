"""What waits for a maintainer."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from coldfusion_server.api.dependencies import Ctx, Who
from coldfusion_server.services import waiting
from coldfusion_shared.schemas.waiting import Waiting

router = APIRouter(prefix="/v1", tags=["rounds"])

ModelQuery = Annotated[str | None, Query(max_length=96, description="owner/name; null: all")]


@router.get("/waiting")
def get_waiting(ctx: Ctx, who: Who, model: ModelQuery = None) -> Waiting:
    """Show what waits for maintainers: how much to everybody, what it is to them."""
    return waiting.waiting(ctx, who, model)
