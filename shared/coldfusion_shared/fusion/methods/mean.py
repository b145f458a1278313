"""The plain mean of the updates: the fusion of the ColD Fusion paper."""

from __future__ import annotations

from coldfusion_shared.fusion.methods import Parameters, WeightMethod, methods


class MeanParameters(Parameters):
    """The mean has none."""


def mean_weights(_: MeanParameters, count: int) -> list[float]:
    """Return ``1 / count`` for each of `count` updates."""
    return [1.0 / count] * count


methods.register("mean")(
    WeightMethod(
        summary="plain mean of the updates",
        paper="https://arxiv.org/abs/2212.01378",
        parameters=MeanParameters,
        weights=mean_weights,
    )
)
