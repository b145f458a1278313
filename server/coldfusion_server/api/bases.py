"""Bases, their files and their evaluations."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import FileResponse, JSONResponse, Response

from coldfusion_server.api.dependencies import Ctx, ModelPath, Who, WindowQuery
from coldfusion_server.api.files import ANSWERS, matches, send
from coldfusion_server.services import bases, differences, evaluations, measuring_again
from coldfusion_shared.schemas.agreement import Agreement
from coldfusion_shared.schemas.bases import Base, Difference
from coldfusion_shared.schemas.common import Page
from coldfusion_shared.schemas.evaluations import (
    EvaluateRequest,
    Evaluation,
    EvaluationAsked,
    EvaluationReport,
)

router = APIRouter(prefix="/v1/models/{owner}/{name}/bases", tags=["bases"])

VersionPath = Annotated[str, Path(description="v<n> or latest", examples=["latest"])]


@router.get("")
def list_bases(ctx: Ctx, who: Who, model: ModelPath, window: WindowQuery) -> Page[Base]:
    """List the model's bases, newest first."""
    return bases.list_bases(ctx, model, who, window)


@router.get("/{version}", response_model=Base, responses={304: {"description": "not modified"}})
def get_base(
    ctx: Ctx, who: Who, model: ModelPath, version: VersionPath, request: Request
) -> Response:
    """Show one base with its manifest. The ETag is the manifest's digest."""
    base = bases.get_base(ctx, model, version, who)
    # The manifest never changes, but whether it is the newest one's does, and what is known of it.
    told = [base.digest, *([] if base.current else ["past"])]
    etag = f'"{"-".join(told if base.distance is not None else [*told, "unmeasured"])}"'
    if matches(request, etag):
        return Response(status_code=304, headers={"ETag": etag})
    return JSONResponse(base.model_dump(mode="json"), headers={"ETag": etag})


# Two routes, because an operation's id has to be unique.
@router.head("/{version}/files/{path:path}", include_in_schema=False)
@router.get(
    "/{version}/files/{path:path}",
    response_class=FileResponse,
    responses=ANSWERS,
)
def get_file(
    ctx: Ctx, who: Who, model: ModelPath, version: VersionPath, path: str, request: Request
) -> Response:
    """Send one file of a base, whole or by range, or where it is. The ETag is its SHA-256."""
    return send(ctx, bases.get_file(ctx, model, version, path, who), request)


@router.get("/{version}/differences")
def list_differences(
    ctx: Ctx, who: Who, model: ModelPath, version: VersionPath
) -> list[Difference]:
    """List the differences by which the base's weights can be had from its parent's."""
    return differences.list_differences(ctx, model, version, who)


@router.get(
    "/{version}/differences/{sha256}",
    response_class=FileResponse,
    responses=ANSWERS,
)
def get_difference(
    ctx: Ctx, who: Who, model: ModelPath, version: VersionPath, sha256: str, request: Request
) -> Response:
    """Send one difference, whole or by range, or where it is. The ETag is its SHA-256."""
    return send(ctx, differences.get_difference(ctx, model, version, sha256, who), request)


@router.get("/{version}/evaluations", tags=["evaluations"])
def list_evaluations(
    ctx: Ctx, who: Who, model: ModelPath, version: VersionPath
) -> list[Evaluation]:
    """List what evaluators measured of a base, oldest first."""
    return evaluations.list_evaluations(ctx, model, version, who)


@router.post(
    "/{version}/evaluations",
    status_code=201,
    tags=["evaluations"],
    responses={200: {"model": Evaluation, "description": "handed in before, the same"}},
)
def post_evaluation(
    ctx: Ctx,
    who: Who,
    model: ModelPath,
    version: VersionPath,
    report: EvaluationReport,
    response: Response,
) -> Evaluation:
    """Keep scores that the caller, an evaluator, measured of a base. Harmless to repeat."""
    kept, new = evaluations.post_evaluation(ctx, model, version, report, who)
    response.status_code = 201 if new else 200
    return kept


@router.post("/{version}/evaluate", tags=["evaluations"])
def evaluate(
    ctx: Ctx,
    who: Who,
    model: ModelPath,
    version: VersionPath,
    request: EvaluateRequest | None = None,
) -> EvaluationAsked:
    """Have the Repository's own evaluator measure a base once more; for maintainers."""
    return measuring_again.ask(ctx, model, version, request or EvaluateRequest(), who)


@router.get("/{version}/agreement", tags=["evaluations"])
def list_agreements(ctx: Ctx, who: Who, model: ModelPath, version: VersionPath) -> list[Agreement]:
    """Tell how well a base's evaluators agree, by suite and protocol, and who differs."""
    return evaluations.list_agreements(ctx, model, version, who)
