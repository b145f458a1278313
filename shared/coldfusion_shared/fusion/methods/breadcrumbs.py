"""Model Breadcrumbs: drop both the outliers and the small values of each update, then add up."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from coldfusion_shared.fusion.consensus import merged
from coldfusion_shared.fusion.methods import Block, CoordinateMethod, Parameters, methods
from coldfusion_shared.fusion.sparsify.magnitude import MagnitudeBand
from coldfusion_shared.fusion.updates import Floats


class BreadcrumbsParameters(Parameters):
    """Parameters of `breadcrumbs`."""

    density: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.9, description="share of each tensor's values that is kept"
    )
    gamma: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.01, description="share of the largest values, which is dropped first"
    )
    elect_sign: bool = Field(
        default=False, description="take only the values that agree with the elected sign, as TIES"
    )
    normalize: bool = Field(
        default=True, description="divide by the weights' sum; false: task arithmetic, the sum"
    )
    scale: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="factor of the fused update (lambda)"
    )


def breadcrumbs(parameters: BreadcrumbsParameters, block: Block) -> Floats:
    """Return the weighted mean, or sum, of what is left of the updates, times lambda, (n,)."""
    fused = merged(
        block.stack,
        block.prior,
        elect_sign=parameters.elect_sign,
        normalize=parameters.normalize,
    )
    fused *= np.float32(parameters.scale)
    return fused


methods.register("breadcrumbs")(
    CoordinateMethod(
        summary="mean of the updates without each tensor's outliers and small values",
        paper="https://arxiv.org/abs/2312.06795",
        parameters=BreadcrumbsParameters,
        uses_prior=True,
        sparsify=lambda parameters, _: MagnitudeBand(parameters.density, parameters.gamma),
        combine=breadcrumbs,
    )
)
