"""Centred clipping: walk towards the updates, none of them pulling farther than a radius."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from coldfusion_shared.fusion.methods import Facts, Parameters, WeightMethod, methods
from coldfusion_shared.fusion.methods.geometric_median import distances_to
from coldfusion_shared.fusion.updates import Doubles


class CenteredClippingParameters(Parameters):
    """Parameters of `centered_clipping`."""

    radius: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="tau; null: the median of the updates' norms"
    )
    iterations: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=3, description="steps from zero"
    )


def centered_weights(parameters: CenteredClippingParameters, facts: Facts) -> Doubles:
    """Return the weights of v after ``v <- v + sum share * clip(Delta - v)``, from v = 0."""
    gram, shares = facts.known_gram, facts.shares
    radius = float(np.median(gram.norms)) if parameters.radius is None else parameters.radius
    weights = np.zeros(facts.count)
    for _ in range(parameters.iterations):
        distances = distances_to(gram.total, weights)
        scale = np.divide(radius, distances, out=np.ones(facts.count), where=distances > radius)
        pulls = shares * scale
        weights = weights * (1 - pulls.sum()) + pulls
    return weights


methods.register("centered_clipping")(
    WeightMethod(
        summary="steps towards the updates, each clipped to the median norm",
        paper="https://arxiv.org/abs/2012.10333",
        parameters=CenteredClippingParameters,
        uses_prior=True,
        weights=centered_weights,
    )
)
