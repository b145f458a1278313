"""Suites."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from coldfusion_server.api.dependencies import Ctx, Who
from coldfusion_server.services import suites
from coldfusion_shared.schemas.evaluations import RegisteredSuite, Suite

router = APIRouter(prefix="/v1/suites", tags=["evaluations"])

NamePath = Annotated[str, Path(description="the suite's name", examples=["text-10"])]


@router.get("")
def list_suites(ctx: Ctx, who: Who) -> list[RegisteredSuite]:
    """List the suites by name; without a token, those that public bases were measured with."""
    return suites.list_suites(ctx, who)


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
