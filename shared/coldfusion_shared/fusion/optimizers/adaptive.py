"""Adam and Yogi on the fused updates (FedOpt), with bias correction, scaled to the updates."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from coldfusion_shared.fusion.methods import Parameters
from coldfusion_shared.fusion.optimizers import Moment, Optimizer, State, optimizers
from coldfusion_shared.fusion.updates import Doubles


class AdaptiveParameters(Parameters):
    """Parameters of `adam` and `yogi`."""

    beta1: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.9, description="what is left of the first moment from one round to the next"
    )
    beta2: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.99, description="what is left of the second moment from one round to the next"
    )
    tau: Annotated[float, Field(gt=0)] = Field(
        default=1e-3, description="added to the root of the second moment, in units of the scale"
    )
    scale: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        default="auto",
        description="length of a coordinate's step; auto: the root mean square of this round's "
        "update, so that the first step is about as long as the update; 1: FedOpt as published",
    )


def adam(parameters: AdaptiveParameters, moment: Moment) -> tuple[Doubles, State]:
    """Return the step with ``v <- beta2 v + (1 - beta2) d^2``."""
    squares = np.square(moment.update)
    second = parameters.beta2 * moment.state["second"] + (1 - parameters.beta2) * squares
    return _step(parameters, moment, second)


def yogi(parameters: AdaptiveParameters, moment: Moment) -> tuple[Doubles, State]:
    """Return the step with ``v <- v - (1 - beta2) d^2 sign(v - d^2)``."""
    squares, second = np.square(moment.update), moment.state["second"]
    second = second - (1 - parameters.beta2) * squares * np.sign(second - squares)
    return _step(parameters, moment, second)


def _step(parameters: AdaptiveParameters, moment: Moment, second: Doubles) -> tuple[Doubles, State]:
    """
    Return ``scale * m' / (sqrt(v') + tau * scale)`` and the new state.

    m and v start at 0; m' = m / (1 - beta1^t) and v' = v / (1 - beta2^t) correct for that, as in
    Adam (https://arxiv.org/abs/1412.6980) and its place for the added constant.
    """
    first = parameters.beta1 * moment.state["first"] + (1 - parameters.beta1) * moment.update
    scale = moment.scale if parameters.scale == "auto" else parameters.scale
    unbiased = first / (1 - parameters.beta1**moment.count)
    spread = np.sqrt(second / (1 - parameters.beta2**moment.count)) + parameters.tau * scale
    step = np.divide(scale * unbiased, spread, out=np.zeros_like(first), where=spread > 0)
    return step, {"first": first, "second": second}


def _needs_scale(parameters: AdaptiveParameters) -> bool:
    return parameters.scale == "auto"


optimizers.register("adam")(
    Optimizer(
        summary="Adam over the rounds (FedAdam)",
        paper="https://arxiv.org/abs/2003.00295",
        parameters=AdaptiveParameters,
        step=adam,
        state=("first", "second"),
        needs_scale=_needs_scale,
    )
)
optimizers.register("yogi")(
    Optimizer(
        summary="Yogi over the rounds (FedYogi)",
        paper="https://arxiv.org/abs/2003.00295",
        parameters=AdaptiveParameters,
        step=yogi,
        state=("first", "second"),
        needs_scale=_needs_scale,
    )
)
