"""Multi-Krum: the mean of the updates that lie closest to their neighbours."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from coldfusion_shared.fusion.methods import Facts, WeightMethod, methods
from coldfusion_shared.fusion.methods.krum import (
    PAPER,
    KrumParameters,
    assumed_byzantine,
    keep_best,
)
from coldfusion_shared.fusion.methods.krum import minimum as krum_minimum
from coldfusion_shared.fusion.updates import Doubles


class MultiKrumParameters(KrumParameters):
    """Parameters of `multi_krum`."""

    keep: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="number of contributions to keep; null: K - f"
    )


def minimum(parameters: MultiKrumParameters) -> int:
    """Return 2 f + 3, or the number to keep where that is more."""
    return max(krum_minimum(parameters), parameters.keep or 0)


def multi_krum_weights(parameters: MultiKrumParameters, facts: Facts) -> Doubles:
    """Return ``1 / keep`` for the updates with the best scores."""
    keep = parameters.keep or facts.count - assumed_byzantine(parameters, facts.count)
    return keep_best(parameters, facts, keep)


methods.register("multi_krum")(
    WeightMethod(
        summary="mean of the updates that lie closest to their neighbours",
        paper=PAPER,
        parameters=MultiKrumParameters,
        weights=multi_krum_weights,
        minimum=minimum,
    )
)
