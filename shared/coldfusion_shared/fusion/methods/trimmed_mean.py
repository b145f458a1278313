"""The mean of the updates without the extremes, coordinate by coordinate."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from coldfusion_shared.fusion.methods import (
    Block,
    CoordinateMethod,
    Parameters,
    methods,
)
from coldfusion_shared.fusion.order import ranked_rows
from coldfusion_shared.fusion.updates import Doubles, sum_of


class TrimmedMeanParameters(Parameters):
    """Parameters of `trimmed_mean`."""

    beta: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        default=0.2, description="floor(beta K) values are dropped at each side"
    )


def trimmed_mean(parameters: TrimmedMeanParameters, block: Block) -> Doubles:
    """Return the mean of what is left of each coordinate, (n,)."""
    count = len(block.stack)
    dropped = int(parameters.beta * count)
    rows = ranked_rows(block.stack, dropped, count - dropped)
    total = sum_of(rows)
    total /= len(rows)
    return total


methods.register("trimmed_mean")(
    CoordinateMethod(
        summary="mean of the updates without the extremes of each coordinate",
        paper="https://arxiv.org/abs/1803.01498",
        parameters=TrimmedMeanParameters,
        combine=trimmed_mean,
    )
)
