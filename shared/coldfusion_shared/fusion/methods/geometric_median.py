"""RFA: the point with the smallest sum of distances to the updates, over the whole model."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from coldfusion_shared.fusion.methods import Facts, Parameters, WeightMethod, methods
from coldfusion_shared.fusion.updates import Doubles


class GeometricMedianParameters(Parameters):
    """Parameters of `geometric_median`."""

    nu: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1e-6,
        description="distances count as at least this much, in units of the updates' median norm",
    )
    max_iterations: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=1000, description="Weiszfeld steps at most"
    )
    tolerance: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1e-12,
        description="stop when no weighted update moves by more, in units of the median norm",
    )


def median_weights(parameters: GeometricMedianParameters, facts: Facts) -> Doubles:
    """
    Return the weights of the geometric median by smoothed Weiszfeld steps.

    Each step gives an update the weight ``share / max(nu, distance)``, normalised. The median is
    always a weighted mean of the updates, so the distances to it follow from the Gram matrix.
    """
    products, norms, shares = facts.known_gram.total, facts.known_gram.norms, facts.shares
    unit = float(np.median(norms)) or float(norms.max()) or 1.0
    weights = shares
    for _ in range(parameters.max_iterations):
        distances = distances_to(products, weights)
        pulls = shares / np.maximum(distances, parameters.nu * unit)
        moved = pulls / pulls.sum()
        # Measured on the updates: the weight of a giant one is small long before it is harmless.
        done = (np.abs(moved - weights) * norms).max() <= parameters.tolerance * unit
        weights = moved
        if done:
            break
    return weights


def distances_to(products: Doubles, weights: Doubles) -> Doubles:
    """Return each update's distance to the sum of the updates by `weights`, (K,)."""
    along = products @ weights
    squares = np.diag(products) - 2 * along + weights @ along
    distances: Doubles = np.sqrt(np.maximum(squares, 0))
    return distances


methods.register("geometric_median")(
    WeightMethod(
        summary="the point with the smallest sum of distances to the updates (RFA)",
        paper="https://arxiv.org/abs/1912.13445",
        parameters=GeometricMedianParameters,
        uses_prior=True,
        weights=median_weights,
    )
)
