"""Replays: history fused again without some contributions; for maintainers."""

from __future__ import annotations

from fastapi import APIRouter, status

from coldfusion_server.api.dependencies import Ctx, ModelPath, Who
from coldfusion_server.services import replay_publishing, replays
from coldfusion_shared.schemas.replays import Replay, ReplayRequest

router = APIRouter(prefix="/v1/models/{owner}/{name}/replays", tags=["replays"])


@router.get("")
def list_replays(ctx: Ctx, who: Who, model: ModelPath) -> list[Replay]:
    """List the model's replays, newest first."""
    return replays.list_replays(ctx, model, who)


@router.post("", status_code=status.HTTP_201_CREATED)
def ask(ctx: Ctx, who: Who, model: ModelPath, request: ReplayRequest) -> Replay:
    """Have the history fused again without some contributions, into bases for review."""
    return replays.ask(ctx, model, request, who)


@router.get("/{replay}")
def get_replay(ctx: Ctx, who: Who, model: ModelPath, replay: str) -> Replay:
    """Show one replay: its bases so far, how far they are from the old ones, and the scores."""
    return replays.get_replay(ctx, model, replay, who)


@router.post("/{replay}/publish")
def publish(ctx: Ctx, who: Who, model: ModelPath, replay: str) -> Replay:
    """Publish its bases and make the last one the head; the old ones stay."""
    return replay_publishing.publish(ctx, model, replay, who)


@router.post("/{replay}/discard")
def discard(ctx: Ctx, who: Who, model: ModelPath, replay: str) -> Replay:
    """Give it up; its bases go with the next garbage collection."""
    return replays.discard(ctx, model, replay, who)
