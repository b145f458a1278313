"""Contributors."""

from __future__ import annotations

from fastapi import APIRouter

from coldfusion_server.api.dependencies import Ctx, Who
from coldfusion_server.services import contributed
from coldfusion_shared.schemas.contributors import Contributor

router = APIRouter(prefix="/v1", tags=["contributors"])


@router.get("/contributors/{contributor}")
def get_contributor(ctx: Ctx, who: Who, contributor: str) -> Contributor:
    """Show what somebody has contributed, to models that the caller may read."""
    return contributed.get_contributor(ctx, contributor, who)
