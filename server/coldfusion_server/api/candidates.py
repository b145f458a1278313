"""Candidates: fused bases before publication, for those who measure them and those who decide."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import FileResponse, Response

from coldfusion_server.api.dependencies import Ctx, ModelPath, Who
from coldfusion_server.api.files import ANSWERS, send
from coldfusion_server.api.rounds import NumberPath
from coldfusion_server.services import candidates, evaluations
from coldfusion_shared.schemas.evaluations import Evaluation, EvaluationReport
from coldfusion_shared.schemas.rounds import Candidate

router = APIRouter(prefix="/v1/models/{owner}/{name}", tags=["candidates"])

IdPath = Annotated[str, Path(description="a candidate's id", examples=["5f0c9f0e5a7b4d21"])]


@router.get("/candidates")
def list_waiting(ctx: Ctx, who: Who, model: ModelPath) -> list[Candidate]:
    """List what waits for its gate, or for a decision on its replay; for evaluators."""
    return candidates.list_waiting(ctx, model, who)


@router.get("/rounds/{number}/candidates")
def list_candidates(ctx: Ctx, who: Who, model: ModelPath, number: NumberPath) -> list[Candidate]:
    """List a round's candidates by their server learning rate; for evaluators and maintainers."""
    return candidates.list_candidates(ctx, model, number, who)


@router.get("/candidates/{candidate}")
def get_candidate(ctx: Ctx, who: Who, model: ModelPath, candidate: IdPath) -> Candidate:
    """Show one candidate with its manifest; for evaluators and maintainers."""
    return candidates.get_candidate(ctx, model, candidate, who)


# Two routes, because an operation's id has to be unique.
@router.head("/candidates/{candidate}/files/{path:path}", include_in_schema=False)
@router.get(
    "/candidates/{candidate}/files/{path:path}",
    response_class=FileResponse,
    responses=ANSWERS,
)
def get_candidate_file(
    ctx: Ctx, who: Who, model: ModelPath, candidate: IdPath, path: str, request: Request
) -> Response:
    """Send one file of a candidate, as those of bases are; for evaluators and maintainers."""
    return send(ctx, candidates.get_file(ctx, model, candidate, path, who), request)


@router.get("/candidates/{candidate}/evaluations", tags=["evaluations"])
def list_candidate_evaluations(
    ctx: Ctx, who: Who, model: ModelPath, candidate: IdPath
) -> list[Evaluation]:
    """List what evaluators measured of a candidate; for evaluators and maintainers."""
    return evaluations.list_of_candidate(ctx, model, candidate, who)


@router.post(
    "/candidates/{candidate}/evaluations",
    status_code=201,
    tags=["evaluations"],
    responses={200: {"model": Evaluation, "description": "handed in before, the same"}},
)
def post_candidate_evaluation(
    ctx: Ctx,
    who: Who,
    model: ModelPath,
    candidate: IdPath,
    report: EvaluationReport,
    response: Response,
) -> Evaluation:
    """Keep scores that the caller, an evaluator, measured of a candidate. Harmless to repeat."""
    kept, new = evaluations.post_of_candidate(ctx, model, candidate, report, who)
    response.status_code = 201 if new else 200
    return kept
