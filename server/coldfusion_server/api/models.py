"""Models."""

from __future__ import annotations

from fastapi import APIRouter

from coldfusion_server.api.dependencies import Ctx, ModelPath, Who, WindowQuery
from coldfusion_server.services import head_moves, models, rollback
from coldfusion_shared.schemas.common import Page
from coldfusion_shared.schemas.models import HeadMove, Model, Policy, RollbackRequest, RolledBack

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("")
def list_models(ctx: Ctx, who: Who, window: WindowQuery) -> Page[Model]:
    """List the models that the caller may read, newest first."""
    return models.list_models(ctx, who, window)


@router.get("/{owner}/{name}")
def get_model(ctx: Ctx, who: Who, model: ModelPath) -> Model:
    """Show one model: its newest base, its policy, its open round."""
    return models.get_model(ctx, model, who)


@router.put("/{owner}/{name}/policy")
def set_policy(ctx: Ctx, who: Who, model: ModelPath, policy: Policy) -> Model:
    """Set how rounds close and fuse, from the open round on; for maintainers."""
    return models.set_policy(ctx, model, policy, who)


@router.get("/{owner}/{name}/heads")
def list_heads(ctx: Ctx, who: Who, model: ModelPath, window: WindowQuery) -> Page[HeadMove]:
    """List the moves of the model's head, newest first: published bases, rollbacks, replays."""
    return head_moves.list_moves(ctx, model, who, window)


@router.post("/{owner}/{name}/rollback")
def roll_back(ctx: Ctx, who: Who, model: ModelPath, request: RollbackRequest) -> RolledBack:
    """Make another base the head; nothing is deleted. For maintainers; harmless to repeat."""
    return rollback.roll_back(ctx, model, request, who)
