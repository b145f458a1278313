"""TIES: trim each update to its largest values, elect a sign, mean of those that agree."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from coldfusion_shared.fusion.consensus import agreeing
from coldfusion_shared.fusion.methods import Block, CoordinateMethod, Parameters, methods
from coldfusion_shared.fusion.sparsify.magnitude import MagnitudeBand
from coldfusion_shared.fusion.updates import Floats


class TiesParameters(Parameters):
    """Parameters of `ties`."""

    density: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.2, description="share of each tensor's values that is kept, the largest"
    )
    scale: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="factor of the fused update (lambda)"
    )
    normalize: bool = Field(
        default=True, description="divide by the weight of those that agree; false: their sum"
    )


def ties(parameters: TiesParameters, block: Block) -> Floats:
    """Return the weighted mean of the values that have the elected sign, times lambda, (n,)."""
    fused = agreeing(block.stack, block.prior, normalize=parameters.normalize)
    fused *= np.float32(parameters.scale)
    return fused


methods.register("ties")(
    CoordinateMethod(
        summary="largest values of each update, mean of those that agree with the elected sign",
        paper="https://arxiv.org/abs/2306.01708",
        parameters=TiesParameters,
        uses_prior=True,
        sparsify=lambda parameters, _: MagnitudeBand(parameters.density),
        combine=ties,
    )
)
