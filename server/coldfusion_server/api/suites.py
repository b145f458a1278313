"""Suites."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from coldfusion_server.api.dependencies import Ctx, Who, WindowQuery
from coldfusion_server.services import suites
from coldfusion_shared.schemas.common import Page
from coldfusion_shared.schemas.evaluations import RegisteredSuite, Suite

router = APIRouter(prefix="/v1/suites", tags=["evaluations"])

NamePath = Annotated[str, Path(description="the suite's name", examples=["text-10"])]


@router.get("")
def list_suites(ctx: Ctx, who: Who, window: WindowQuery) -> Page[RegisteredSuite]:
    """List the suites, newest first; without a token, those of which public bases have scores."""
    return suites.list_suites(ctx, who, window)


@router.get("/{name}")
def get_suite(ctx: Ctx, who: Who, name: NamePath) -> RegisteredSuite:
    """Show what a suite's name stands for: data sets, their digests, limits, settings."""
    return suites.get_suite(ctx, name, who)


@router.put(
    "/{name}",
    status_code=201,
    responses={200: {"model": RegisteredSuite, "description": "registered before, the same"}},
)
def register_suite(
    ctx: Ctx, who: Who, name: NamePath, suite: Suite, response: Response
) -> RegisteredSuite:
    """Let a name stand for a suite, for ever; for evaluators. Harmless to repeat."""
    registered, new = suites.register(ctx, name, suite, who)
    response.status_code = 201 if new else 200
    return registered
