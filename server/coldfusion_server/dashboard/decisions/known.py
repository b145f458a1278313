"""What a policy can name, and what it means: fusion methods, optimizers, checks, encodings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from coldfusion_shared.fusion.catalogue import catalogue, value_range
from coldfusion_shared.schemas.fusion import ParameterDescription, PluginDescription
from coldfusion_shared.schemas.screening import CheckDescription
from coldfusion_shared.screening.catalogue import catalogue as checks
from coldfusion_shared.weights.codecs import discover


@dataclass(frozen=True)
class Known:
    """
    Something that a field can name.

    Attributes:
        name: as it is written.
        summary: what it is.
        parameters: the names of those that it takes, and a sentence on each.
    """

    name: str
    summary: str = ""
    parameters: tuple[tuple[str, str], ...] = ()


@cache
def of_policy() -> Mapping[str, list[Known]]:
    """Return what is known, by the name of the field that names it; with parameters, by theirs."""
    fusion = catalogue()
    return {
        "method": _names(fusion.methods),
        "parameters": _with_parameters(fusion.methods),
        "optimizer": _names(fusion.optimizers),
        "optimizer_parameters": _with_parameters(fusion.optimizers),
        "encodings": [Known(name) for name in discover()],
        "screening": _with_parameters(checks()),
    }


def _names(found: Iterable[PluginDescription]) -> list[Known]:
    return [Known(one.name, one.summary) for one in found]


def _with_parameters(found: Iterable[PluginDescription | CheckDescription]) -> list[Known]:
    return [
        Known(one.name, one.summary, tuple((each.name, _told(each)) for each in one.parameters))
        for one in found
    ]


def _told(parameter: ParameterDescription) -> str:
    default = json.dumps(parameter.default, default=str)
    said = f"{value_range(parameter)}; by itself {default}"
    return f"{parameter.description} ({said})" if parameter.description else said
