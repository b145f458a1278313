"""The plain mean of the updates: the fusion of the ColD Fusion paper."""

from __future__ import annotations

import numpy as np

from coldfusion_shared.fusion.methods import Facts, Parameters, WeightMethod, methods
from coldfusion_shared.fusion.updates import Doubles


class MeanParameters(Parameters):
    """The mean has none."""


def mean_weights(_: MeanParameters, facts: Facts) -> Doubles:
    """Return ``1 / K`` for each update."""
    return np.full(facts.count, 1 / facts.count)


methods.register("mean")(
    WeightMethod(
        summary="plain mean of the updates",
        paper="https://arxiv.org/abs/2212.01378",
        parameters=MeanParameters,
        weights=mean_weights,
        needs_gram=False,
    )
)
