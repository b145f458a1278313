"""The server itself: who answers, who asks, whether all is well."""

from __future__ import annotations

from fastapi import APIRouter

from coldfusion_server.api.dependencies import Ctx, Who
from coldfusion_server.services.health import check_ready
from coldfusion_server.services.tokens import signed_in
from coldfusion_shared import __version__
from coldfusion_shared.schemas.common import ServerInfo
from coldfusion_shared.schemas.tokens import Whoami

router = APIRouter(tags=["server"])


@router.get("/v1")
def info(ctx: Ctx) -> ServerInfo:
    """Tell the server's version and its clock."""
    return ServerInfo(version=__version__, time=ctx.now())


@router.get("/v1/whoami")
def whoami(who: Who) -> Whoami:
    """Tell who holds the token that came with the request."""
    principal = signed_in(who)
    return Whoami(
        name=principal.name,
        role=principal.role,
        expires_at=principal.expires_at,
        models=None if principal.models is None else sorted(principal.models),
    )


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Answer as long as the process lives."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(ctx: Ctx) -> dict[str, str]:
    """Answer 200 while the database works and the store's disk is there, else 503."""
    check_ready(ctx)
    return {"status": "ok"}
