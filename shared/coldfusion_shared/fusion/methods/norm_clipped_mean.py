"""A mean in which no contribution can be longer than the others: the guard against one giant."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from coldfusion_shared.fusion.methods import Facts, Parameters, WeightMethod, methods
from coldfusion_shared.fusion.updates import Doubles


class NormClippedMeanParameters(Parameters):
    """Parameters of `norm_clipped_mean`."""

    max_norm: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="updates that are longer are scaled down to this norm; null: the median of "
        "this round's norms",
    )


def clipped_weights(parameters: NormClippedMeanParameters, facts: Facts) -> Doubles:
    """Return ``share * min(1, C / norm)`` for each update, C the largest norm that is let be."""
    norms = facts.known_gram.norms
    longest = float(np.median(norms)) if parameters.max_norm is None else parameters.max_norm
    scale = np.divide(longest, norms, out=np.ones_like(norms), where=norms > longest)
    weights: Doubles = facts.shares * scale
    return weights


methods.register("norm_clipped_mean")(
    WeightMethod(
        summary="mean of the updates, each no longer than the median update",
        paper="https://arxiv.org/abs/1911.07963",
        parameters=NormClippedMeanParameters,
        uses_prior=True,
        weights=clipped_weights,
    )
)
