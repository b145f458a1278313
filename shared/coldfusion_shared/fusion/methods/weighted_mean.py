"""A weighted mean. The weights are the maintainers', never what a contributor claims."""

from __future__ import annotations

from pydantic import Field

from coldfusion_shared.fusion.methods import Facts, Parameters, WeightMethod, methods
from coldfusion_shared.fusion.updates import Doubles


class WeightedMeanParameters(Parameters):
    """Parameters of `weighted_mean`."""

    normalize: bool = Field(
        default=True,
        description="divide the weights by their sum; false: task arithmetic, the plain sum of the "
        "weighted updates",
    )


def prior_weights(parameters: WeightedMeanParameters, facts: Facts) -> Doubles:
    """Return the weights that maintainers gave."""
    return facts.shares if parameters.normalize else facts.prior


methods.register("weighted_mean")(
    WeightMethod(
        summary="mean of the updates by the weights that the maintainer gave",
        paper="https://arxiv.org/abs/1602.05629",
        parameters=WeightedMeanParameters,
        uses_prior=True,
        weights=prior_weights,
        needs_gram=False,
    )
)
