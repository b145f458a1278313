"""DELLA: drop values by chance, small ones more often, then elect a sign and fuse as TIES does."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from coldfusion_shared.fusion.consensus import merged
from coldfusion_shared.fusion.methods import Block, CoordinateMethod, Parameters, methods
from coldfusion_shared.fusion.sparsify.random import MagnitudePrune
from coldfusion_shared.fusion.updates import Floats


class DellaParameters(Parameters):
    """Parameters of `della`."""

    density: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5, description="mean probability with which a value is kept"
    )
    epsilon: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        default=0.15,
        description="a row's smallest value is kept with density - epsilon, its largest with "
        "density + epsilon",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(default=0, description="of the draws")
    elect_sign: bool = Field(
        default=True, description="take only the values that agree with the elected sign"
    )
    normalize: bool = Field(
        default=True, description="divide by the weights' sum; false: task arithmetic, the sum"
    )
    scale: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="factor of the fused update (lambda)"
    )

    @model_validator(mode="after")
    def _probabilities_are_probabilities(self) -> Self:
        low, high = self.density - self.epsilon, self.density + self.epsilon
        if self.density < 1 and not 0 < low <= high < 1:
            raise ValueError("density - epsilon and density + epsilon must lie between 0 and 1")
        return self


def sparsifier(parameters: DellaParameters, contribution: str) -> MagnitudePrune:
    """Return what drops the values of one contribution."""
    return MagnitudePrune(parameters.density, parameters.epsilon, parameters.seed, contribution)


def della(parameters: DellaParameters, block: Block) -> Floats:
    """Return the weighted mean, or sum, of what is left of the updates, times lambda, (n,)."""
    fused = merged(
        block.stack,
        block.prior,
        elect_sign=parameters.elect_sign,
        normalize=parameters.normalize,
    )
    fused *= np.float32(parameters.scale)
    return fused


methods.register("della")(
    CoordinateMethod(
        summary="drops values by chance, small ones more often, then fuses as TIES does",
        paper="https://arxiv.org/abs/2406.11617",
        parameters=DellaParameters,
        uses_prior=True,
        sparsify=sparsifier,
        combine=della,
    )
)
