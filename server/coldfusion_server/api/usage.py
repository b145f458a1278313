"""Who uses how much of the store."""

from __future__ import annotations

from fastapi import APIRouter

from coldfusion_server.api.dependencies import Ctx, ModelPath, Who
from coldfusion_server.services import usage
from coldfusion_shared.schemas.usage import ModelUsage, OwnUsage, Usage

router = APIRouter(prefix="/v1", tags=["usage"])


@router.get("/models/{owner}/{name}/usage")
def get_model_usage(ctx: Ctx, who: Who, model: ModelPath) -> ModelUsage:
    """Show what a model's bases and contributions take, by contributor."""
    return usage.model_usage(ctx, model, who)


@router.get("/usage")
def get_usage(ctx: Ctx, who: Who) -> Usage:
    """Show what everything takes, by model and by contributor; for maintainers."""
    return usage.all_usage(ctx, who)


@router.get("/usage/me")
def get_own_usage(ctx: Ctx, who: Who) -> OwnUsage:
    """Show what the caller has stored and on the way, and the quota."""
    return usage.own_usage(ctx, who)
