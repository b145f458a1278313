"""Rounds."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from coldfusion_server.api.dependencies import Ctx, ModelPath, Who, WindowQuery
from coldfusion_server.services import rounds
from coldfusion_shared.schemas.common import Page
from coldfusion_shared.schemas.rounds import Round

router = APIRouter(prefix="/v1/models/{owner}/{name}/rounds", tags=["rounds"])

NumberPath = Annotated[str, Path(description="a round's number, or open", examples=["open"])]


@router.get("")
def list_rounds(ctx: Ctx, who: Who, model: ModelPath, window: WindowQuery) -> Page[Round]:
    """List the model's rounds, newest first."""
    return rounds.list_rounds(ctx, model, who, window)


@router.get("/{number}")
def get_round(ctx: Ctx, who: Who, model: ModelPath, number: NumberPath) -> Round:
    """Show one round: its state, what it has and what it is missing."""
    return rounds.get_round(ctx, model, number, who)


@router.post("/{number}/close")
def close_round(ctx: Ctx, who: Who, model: ModelPath, number: NumberPath) -> Round:
    """Close a round now, with what it has; for maintainers."""
    return rounds.close_by_hand(ctx, model, number, who)
