"""What can be fused with."""

from __future__ import annotations

from fastapi import APIRouter

from coldfusion_shared.fusion.catalogue import catalogue
from coldfusion_shared.schemas.fusion import FusionCatalogue

router = APIRouter(prefix="/v1/fusion", tags=["models"])


@router.get("")
def list_fusion() -> FusionCatalogue:
    """List fusion methods and server optimizers with their parameters; needs no token."""
    return catalogue()
