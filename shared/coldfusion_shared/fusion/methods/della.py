"""DELLA: drop values by chance, small ones more often, then elect a sign and fuse as TIES does."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from coldfusion_shared.fusion.consensus import MergeParameters, merge
from coldfusion_shared.fusion.methods import CoordinateMethod, methods
from coldfusion_shared.fusion.sparsify.random import MagnitudePrune


class DellaParameters(MergeParameters):
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

    @model_validator(mode="after")
    def _probabilities_are_probabilities(self) -> Self:
        low, high = self.density - self.epsilon, self.density + self.epsilon
        if self.density < 1 and not 0 < low <= high < 1:
            raise ValueError("density - epsilon and density + epsilon must lie between 0 and 1")
        return self


def sparsifier(parameters: DellaParameters, contribution: str) -> MagnitudePrune:
    """Return what drops the values of one contribution."""
    return MagnitudePrune(parameters.density, parameters.epsilon, parameters.seed, contribution)


methods.register("della")(
    CoordinateMethod(
        summary="drops values by chance, small ones more often, then fuses as TIES does",
        paper="https://arxiv.org/abs/2406.11617",
        parameters=DellaParameters,
        uses_prior=True,
        sparsify=sparsifier,
        combine=merge,
    )
)
