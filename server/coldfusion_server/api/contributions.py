"""Contributions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from coldfusion_server.api.dependencies import BaseUrl, Ctx, ModelPath, Who, WindowQuery
from coldfusion_server.services import contributions, decisions, declaring, withdrawal
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.schemas.common import Page
from coldfusion_shared.schemas.contributions import (
    Contribution,
    Decided,
    Decision,
    Declaration,
    Declared,
    UploadPlan,
    Withdrawal,
    Withdrawn,
)

router = APIRouter(prefix="/v1", tags=["contributions"])


@router.get("/models/{owner}/{name}/contributions")
def list_contributions(
    ctx: Ctx,
    who: Who,
    model: ModelPath,
    window: WindowQuery,
    round_number: Annotated[
        str | None, Query(alias="round", description="a round's number, or open")
    ] = None,
    state: ContributionState | None = None,
    contributor: Annotated[str | None, Query(max_length=100, description="a name, or me")] = None,
) -> Page[Contribution]:
    """List the model's contributions, newest first."""
    return contributions.list_contributions(
        ctx, model, who, window, round_number=round_number, state=state, contributor=contributor
    )


@router.post(
    "/models/{owner}/{name}/contributions",
    status_code=201,
    responses={200: {"model": Declared, "description": "declared before with the same key"}},
)
def declare(
    ctx: Ctx,
    who: Who,
    model: ModelPath,
    base_url: BaseUrl,
    declaration: Declaration,
    response: Response,
    idempotency_key: Annotated[
        str, Header(min_length=8, max_length=128, examples=["b1946ac92492d2347c6235b4d2611184"])
    ],
) -> Declared:
    """Announce a contribution and get the URLs that its bytes go to."""
    declared, new = declaring.declare(ctx, model, declaration, idempotency_key, who, base_url)
    response.status_code = 201 if new else 200
    return declared


@router.get("/contributions/{contribution}")
def get_contribution(ctx: Ctx, who: Who, contribution: str) -> Contribution:
    """Show one contribution and what became of it."""
    return contributions.get_contribution(ctx, contribution, who)


@router.get("/contributions/{contribution}/upload")
def get_upload(ctx: Ctx, who: Who, base_url: BaseUrl, contribution: str) -> UploadPlan:
    """Show which parts have arrived, with fresh URLs for the others."""
    return contributions.get_plan(ctx, contribution, who, base_url)


@router.post("/contributions/{contribution}/complete")
def complete(ctx: Ctx, who: Who, contribution: str) -> Contribution:
    """Say that all parts were sent; harmless to repeat."""
    return contributions.complete(ctx, contribution, who)


@router.post("/contributions/{contribution}/withdraw")
def withdraw(ctx: Ctx, who: Who, contribution: str, request: Withdrawal | None = None) -> Withdrawn:
    """Take one's own contribution back, or remove another's as a maintainer; may be repeated."""
    return withdrawal.withdraw(ctx, contribution, request or Withdrawal(), who)


@router.post("/contributions/{contribution}/release")
def release(ctx: Ctx, who: Who, contribution: str, request: Decision) -> Decided:
    """Let a contribution in quarantine take part, as a maintainer; may be repeated."""
    return decisions.release(ctx, contribution, request, who)


@router.post("/contributions/{contribution}/reject")
def reject(ctx: Ctx, who: Who, contribution: str, request: Decision) -> Decided:
    """Reject a contribution in quarantine for good, as a maintainer; may be repeated."""
    return decisions.reject(ctx, contribution, request, who)
