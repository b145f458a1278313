"""A mean of directions: every update counts as if it were of the mean length."""

from __future__ import annotations

import numpy as np

from coldfusion_shared.fusion.methods import Facts, Parameters, WeightMethod, methods
from coldfusion_shared.fusion.updates import Doubles


class NormalizedMeanParameters(Parameters):
    """The normalized mean has none."""


def normalized_weights(_: NormalizedMeanParameters, facts: Facts) -> Doubles:
    """Return ``share * mean norm / norm``; an update of length 0 has no direction to add."""
    norms = facts.known_gram.norms
    scale = np.divide(norms.mean(), norms, out=np.zeros_like(norms), where=norms > 0)
    weights: Doubles = facts.shares * scale
    return weights


methods.register("normalized_mean")(
    WeightMethod(
        summary="mean of the updates' directions, times their mean norm",
        paper="https://github.com/IBM/model-recycling",
        parameters=NormalizedMeanParameters,
        uses_prior=True,
        weights=normalized_weights,
    )
)
