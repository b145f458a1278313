"""What a Repository can fuse with: methods and server optimizers, and their parameters."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from coldfusion_shared.schemas.common import Response


class ParameterDescription(Response):
    """One parameter of a method or an optimizer."""

    name: str
    description: str
    default: Any = Field(description="its value where it is not given")
    json_schema: dict[str, Any] = Field(description="JSON schema of its value: type and range")


class PluginDescription(Response):
    """A fusion method or a server optimizer."""

    name: str
    summary: str
    paper: str = Field(description="where it is defined")
    kind: str = Field(description="weights, coordinates, before or optimizer")
    parameters: list[ParameterDescription]


class FusionCatalogue(Response):
    """All that the `method` and the `optimizer` of a policy can name."""

    methods: list[PluginDescription]
    before: list[PluginDescription] = Field(
        description="what can go in front of any method, by a field of its name"
    )
    optimizers: list[PluginDescription]
