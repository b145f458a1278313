"""No optimizer: the step is the fused update."""

from __future__ import annotations

from coldfusion_shared.fusion.methods import Parameters
from coldfusion_shared.fusion.optimizers import Moment, Optimizer, State, optimizers
from coldfusion_shared.fusion.updates import Doubles


class NoneParameters(Parameters):
    """Without an optimizer there are none."""


def step(_: NoneParameters, moment: Moment) -> tuple[Doubles, State]:
    """Return the fused update itself."""
    return moment.update, {}


optimizers.register("none")(
    Optimizer(
        summary="the fused update as it is",
        paper="https://arxiv.org/abs/2212.01378",
        parameters=NoneParameters,
        step=step,
    )
)
