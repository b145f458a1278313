"""Momentum (FedAvgM), plain and Nesterov's (DiLoCo)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from coldfusion_shared.fusion.methods import Parameters
from coldfusion_shared.fusion.optimizers import Moment, Optimizer, State, optimizers
from coldfusion_shared.fusion.updates import Doubles


class MomentumParameters(Parameters):
    """Parameters of `momentum` and `nesterov`."""

    beta: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.9, description="what is left of the momentum from one round to the next"
    )


def momentum(parameters: MomentumParameters, moment: Moment) -> tuple[Doubles, State]:
    """Return m and keep it: ``m <- beta m + d``."""
    kept = parameters.beta * moment.state["momentum"] + moment.update
    return kept, {"momentum": kept}


def nesterov(parameters: MomentumParameters, moment: Moment) -> tuple[Doubles, State]:
    """Return ``d + beta m`` after ``m <- beta m + d``."""
    kept = parameters.beta * moment.state["momentum"] + moment.update
    return moment.update + parameters.beta * kept, {"momentum": kept}


optimizers.register("momentum")(
    Optimizer(
        summary="momentum over the rounds (FedAvgM)",
        paper="https://arxiv.org/abs/1909.06335",
        parameters=MomentumParameters,
        step=momentum,
        state=("momentum",),
    )
)
optimizers.register("nesterov")(
    Optimizer(
        summary="Nesterov's momentum over the rounds (DiLoCo)",
        paper="https://arxiv.org/abs/2311.08105",
        parameters=MomentumParameters,
        step=nesterov,
        state=("momentum",),
        server_lr=0.7,
    )
)
