"""The registered methods and optimizers, described: for the CLI, the API and the documentation."""

from __future__ import annotations

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from coldfusion_shared.fusion import optimizers
from coldfusion_shared.fusion.methods import Method, WeightMethod, discover
from coldfusion_shared.fusion.optimizers import Optimizer
from coldfusion_shared.schemas.fusion import (
    FusionCatalogue,
    ParameterDescription,
    PluginDescription,
)
from coldfusion_shared.schemas.recipes import Dare


def catalogue() -> FusionCatalogue:
    """Return everything that is registered, by name."""
    methods, steps = discover(), optimizers.discover()
    return FusionCatalogue(
        methods=[_described(name, methods[name], _kind(methods[name])) for name in methods],
        before=[DARE],
        optimizers=[_described(name, steps[name], "optimizer") for name in steps],
    )


def parameters_of(model: type[BaseModel]) -> list[ParameterDescription]:
    """Return the fields of a plug-in's parameters, described."""
    properties = model.model_json_schema().get("properties", {})
    hidden = {"title", "description", "default"}
    return [
        ParameterDescription(
            name=name,
            description=field.description or "",
            default=None if field.default is PydanticUndefined else field.default,
            json_schema={
                key: value for key, value in properties[name].items() if key not in hidden
            },
        )
        for name, field in model.model_fields.items()
    ]


def value_range(parameter: ParameterDescription) -> str:
    """Return the type and the range of a parameter for people: ``number, above 0, at most 1``."""
    return " or ".join(_alternatives(parameter.json_schema))


def _kind(method: Method) -> str:
    return "weights" if isinstance(method, WeightMethod) else "coordinates"


def _described(name: str, entry: Method | Optimizer, kind: str) -> PluginDescription:
    return PluginDescription(
        name=name,
        summary=entry.summary,
        paper=entry.paper,
        kind=kind,
        parameters=parameters_of(entry.parameters),
    )


DARE = PluginDescription(
    name="dare",
    summary="drops values of each update by chance and divides what is left by its probability",
    paper="https://arxiv.org/abs/2311.03099",
    kind="before",
    parameters=parameters_of(Dare),
)

LIMITS = {
    "exclusiveMinimum": "above",
    "minimum": "at least",
    "exclusiveMaximum": "below",
    "maximum": "at most",
}


def _alternatives(schema: dict[str, object]) -> list[str]:
    options = schema.get("anyOf")
    if isinstance(options, list):
        return [text for option in options for text in _alternatives(option)]
    if "const" in schema:
        return [str(schema["const"])]
    words = schema.get("enum")
    if isinstance(words, list):
        return [str(word) for word in words]
    limits = [f"{word} {schema[key]:g}" for key, word in LIMITS.items() if key in schema]
    return [", ".join([str(schema.get("type", "any")), *limits])]
