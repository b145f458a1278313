"""Spherical interpolation between two updates."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from coldfusion_shared.fusion.methods import Facts, Parameters, WeightMethod, methods
from coldfusion_shared.fusion.updates import Doubles

# Nearer to 0 or 180 degrees than this the plane of the two is lost in rounding.
SMALLEST_SINE = 1e-6


class SlerpParameters(Parameters):
    """Parameters of `slerp`."""

    t: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="0: the first update, 1: the second"
    )


def slerp_weights(parameters: SlerpParameters, facts: Facts) -> Doubles:
    """
    Return ``sin((1 - t) a) / sin(a)`` and ``sin(t a) / sin(a)``, a the angle between the updates.

    Along one line, where there is no arc, the interpolation is linear.
    """
    t = parameters.t
    angle = float(np.arccos(facts.known_gram.cosines[0, 1]))
    sine = np.sin(angle)
    if sine < SMALLEST_SINE:
        return np.array([1 - t, t])
    weights: Doubles = np.array([np.sin((1 - t) * angle), np.sin(t * angle)]) / sine
    return weights


methods.register("slerp")(
    WeightMethod(
        summary="spherical interpolation between two updates",
        paper="https://doi.org/10.1145/325334.325242",
        parameters=SlerpParameters,
        weights=slerp_weights,
        minimum=lambda _: 2,
        maximum=2,
        symmetric=False,
    )
)
