"""Fusion methods, one file each, found by `discover`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.registry import Registry


class Parameters(BaseModel):
    """Base of every method's parameters; what a method does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class WeightMethod:
    """
    A method whose fused update is a weighted sum of the updates.

    Attributes:
        summary: one line for lists and help.
        paper: where it is defined.
        parameters: its parameters, as a pydantic model.
        weights: from the parameters and the number of updates to one weight for each.
    """

    summary: str
    paper: str
    parameters: type[Parameters]
    weights: Callable[[Any, int], list[float]]


methods: Registry[WeightMethod] = Registry("fusion method", "coldfusion.methods")


def discover() -> Registry[WeightMethod]:
    """Return the registry after importing every fusion method."""
    methods.discover(sys.modules[__name__])
    return methods


def check_parameters(name: str, parameters: dict[str, Any]) -> Parameters:
    """
    Return the validated parameters of the method called `name`.

    Raises:
        UnknownName: there is no such method.
        InvalidRequest: a parameter is unknown or out of range.
    """
    try:
        return discover()[name].parameters.model_validate(parameters)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(
            f"Parameter {where!r} of the fusion method {name!r}: {first['msg']}."
        ) from None
