"""How the Repository is doing; for those who look after all of it."""

from __future__ import annotations

from fastapi import APIRouter

from coldfusion_server.api.dependencies import Ctx, Events, Who
from coldfusion_server.services import health_numbers
from coldfusion_shared.schemas.health import Health

router = APIRouter(prefix="/v1", tags=["server"])


@router.get("/health")
def get_health(ctx: Ctx, who: Who, broker: Events) -> Health:
    """Show queues, leases, failures and storage; for maintainers of all models, and admins."""
    return health_numbers.numbers(ctx, who, broker.watchers, broker.last)
