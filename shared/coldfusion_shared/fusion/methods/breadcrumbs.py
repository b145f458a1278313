"""Model Breadcrumbs: drop both the outliers and the small values of each update, then add up."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from coldfusion_shared.fusion.consensus import MergeParameters, merge
from coldfusion_shared.fusion.methods import CoordinateMethod, methods
from coldfusion_shared.fusion.sparsify.magnitude import MagnitudeBand


class BreadcrumbsParameters(MergeParameters):
    """Parameters of `breadcrumbs`."""

    density: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.9, description="share of each tensor's values that is kept"
    )
    gamma: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.01, description="share of the largest values, which is dropped first"
    )


methods.register("breadcrumbs")(
    CoordinateMethod(
        summary="mean of the updates without each tensor's outliers and small values",
        paper="https://arxiv.org/abs/2312.06795",
        parameters=BreadcrumbsParameters,
        uses_prior=True,
        sparsify=lambda parameters, _: MagnitudeBand(parameters.density, parameters.gamma),
        combine=merge,
    )
)
