"""The Repository's key, and what it has signed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from coldfusion_server.api.bases import VersionPath
from coldfusion_server.api.dependencies import Ctx, ModelPath, Who
from coldfusion_server.services import signing
from coldfusion_shared.signing.heads import NONCE

router = APIRouter(prefix="/v1", tags=["signatures"])

PEM = "application/x-pem-file"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"

Nonce = Annotated[
    str,
    Query(pattern=NONCE, description="hexadecimal digits that the caller has just made up"),
]


@router.get(
    "/signing-key",
    response_class=Response,
    responses={200: {"content": {PEM: {"schema": {"type": "string"}}}}},
)
def get_signing_key(ctx: Ctx) -> Response:
    """Show the public key that bases are signed with, as PEM."""
    return Response(ctx.signing_key.public.pem, media_type=PEM)


@router.get(
    "/models/{owner}/{name}/bases/{version}/signature",
    response_class=Response,
    responses={200: {"content": {BUNDLE: {"schema": {"type": "object"}}}}},
)
def get_signature(ctx: Ctx, who: Who, model: ModelPath, version: VersionPath) -> Response:
    """Show the signature of a base's files and manifest, an OpenSSF model signature."""
    return Response(signing.signature_of(ctx, model, version, who), media_type=BUNDLE)


@router.get(
    "/models/{owner}/{name}/head",
    response_class=Response,
    responses={200: {"content": {BUNDLE: {"schema": {"type": "object"}}}}},
)
def get_head(ctx: Ctx, who: Who, model: ModelPath, nonce: Nonce = "") -> Response:
    """Tell which base is the newest, signed at this moment and together with the nonce."""
    signed = signing.signed_head(ctx, model, nonce, who)
    return Response(signed, media_type=BUNDLE, headers={"Cache-Control": "no-store"})
