"""
Server optimizers, one file each: from the fused update and a state to the step of the base.

The fused update d stands for a negative gradient. The state (momenta) is float32 tensors beside the
base; the arithmetic is float64.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from coldfusion_shared.fusion.updates import Doubles
from coldfusion_shared.parameters import Parameters, validated
from coldfusion_shared.registry import Registry

State = dict[str, Doubles]


@dataclass(frozen=True)
class Moment:
    """
    A span of one tensor at one step.

    Attributes:
        update: the fused update d, (n,), float64.
        state: by name, each (n,); zeros at the first step.
        count: number of this step, from 1.
        scale: root mean square of the whole fused update, or of the mean update where the method
            is not a weighted sum; for optimizers that ask for it.
    """

    update: Doubles
    state: Mapping[str, Doubles]
    count: int
    scale: float = 1.0


@dataclass(frozen=True)
class Optimizer:
    """
    A server optimizer.

    Attributes:
        summary: one line for lists and help.
        paper: where it is defined.
        parameters: its parameters, as a pydantic model.
        step: from the parameters and a moment to the step, which the server learning rate is
            applied to, and the new state.
        state: names of the tensors that it keeps for each tensor of the body.
        server_lr: the server learning rate where none is asked for.
        needs_scale: from the parameters to whether it asks for the updates' size.
    """

    summary: str
    paper: str
    parameters: type[Parameters]
    step: Callable[[Any, Moment], tuple[Doubles, State]]
    state: tuple[str, ...] = ()
    server_lr: float = 1.0
    needs_scale: Callable[[Any], bool] = lambda _: False


optimizers: Registry[Optimizer] = Registry("server optimizer", "coldfusion.optimizers")


def discover() -> Registry[Optimizer]:
    """Return the registry after importing every server optimizer."""
    optimizers.discover(sys.modules[__name__])
    return optimizers


def check_parameters(name: str, parameters: Mapping[str, Any]) -> Parameters:
    """
    Return the validated parameters of the server optimizer called `name`.

    Raises:
        UnknownName: there is no such optimizer.
        InvalidRequest: a parameter is unknown or out of range.
    """
    return validated(f"the server optimizer {name!r}", discover()[name].parameters, parameters)
