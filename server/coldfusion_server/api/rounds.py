"""Rounds."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from coldfusion_server.api.dependencies import Ctx, ModelPath, Who, WindowQuery
from coldfusion_server.services import again, cancelling, closing, rounds
from coldfusion_shared.schemas.common import Page
from coldfusion_shared.schemas.rounds import (
    AgainRequest,
    CancelRequest,
    CloseRequest,
    FusedAgain,
    Round,
)

router = APIRouter(prefix="/v1/models/{owner}/{name}/rounds", tags=["rounds"])

NumberPath = Annotated[str, Path(description="a round's number, or open", examples=["open"])]
# Of what is asked for twice, the open round would be another one the second time.
PlainNumberPath = Annotated[str, Path(description="the round's number", examples=["7"])]


@router.get("")
def list_rounds(ctx: Ctx, who: Who, model: ModelPath, window: WindowQuery) -> Page[Round]:
    """List the model's rounds, newest first."""
    return rounds.list_rounds(ctx, model, who, window)


@router.get("/{number}")
def get_round(ctx: Ctx, who: Who, model: ModelPath, number: NumberPath) -> Round:
    """Show one round: its state, what it has and what it is missing."""
    return rounds.get_round(ctx, model, number, who)


@router.post("/{number}/close")
def close_round(
    ctx: Ctx, who: Who, model: ModelPath, number: NumberPath, request: CloseRequest | None = None
) -> Round:
    """Close a round now, with what it has, or at a time to come; for maintainers."""
    at = None if request is None else request.at
    return closing.close_by_hand(ctx, model, number, who, at)


@router.post("/{number}/cancel")
def cancel_round(
    ctx: Ctx, who: Who, model: ModelPath, number: PlainNumberPath, request: CancelRequest
) -> Round:
    """End a round without a base; what it had goes into the next one. For maintainers."""
    return cancelling.cancel(ctx, model, number, request.reason, who)


@router.post("/{number}/again")
def fuse_again(
    ctx: Ctx, who: Who, model: ModelPath, number: PlainNumberPath, request: AgainRequest
) -> FusedAgain:
    """Have fused again what a rejected round has set aside, or a part of it; for maintainers."""
    return again.fuse_again(ctx, model, number, request, who)
