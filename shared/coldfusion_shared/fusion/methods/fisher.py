"""Fisher-weighted mean: each value counts by how much its contributor's task depends on it."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from coldfusion_shared.fusion.methods import Block, CoordinateMethod, Parameters, methods
from coldfusion_shared.fusion.updates import Doubles


class FisherParameters(Parameters):
    """Parameters of `fisher`."""

    floor: Annotated[float, Field(gt=0)] = Field(
        default=1e-6,
        description="added to the sum of the Fisher information, against division by 0",
    )


def fisher(parameters: FisherParameters, block: Block) -> Doubles:
    """Return ``sum F_c Delta_c / (sum F_c + floor)``, (n,), each F_c times its prior weight."""
    assert block.fisher is not None, "the method says that it needs Fisher information"
    above, below = np.zeros(block.stack.shape[1]), np.full(block.stack.shape[1], parameters.floor)
    for row, information, weight in zip(block.stack, block.fisher, block.prior, strict=True):
        scaled = np.multiply(information, weight, dtype=np.float64)
        below += scaled
        scaled *= row
        above += scaled
    above /= below
    return above


methods.register("fisher")(
    CoordinateMethod(
        summary="mean of the updates, each value weighted by its Fisher information",
        paper="https://arxiv.org/abs/2111.09832",
        parameters=FisherParameters,
        uses_prior=True,
        needs_fisher=True,
        combine=fisher,
    )
)
