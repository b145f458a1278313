"""
mergekit's YAML, for the methods that both have: its users switch by changing one word.

What would come out differently here is refused, with the reason, rather than done almost right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.schemas.recipes import Dare, Recipe

DTYPES = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float64": "F64",
}

SUPPORTED = (
    "linear", "task_arithmetic", "ties", "dare_linear", "dare_ties", "breadcrumbs",
    "breadcrumbs_ties", "della", "della_linear", "model_stock", "sce",
)  # fmt: skip


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str
    parameters: dict[str, Any] = {}


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    merge_method: str
    models: list[_Entry] = Field(min_length=1)
    base_model: str | None = None
    parameters: dict[str, Any] = {}
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer_source: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class MergekitMerge:
    """
    A merge that mergekit's YAML describes, in our words.

    Attributes:
        base: folder or id of the base.
        models: folder or id of each contribution, and its weight.
        recipe: method and parameters.
        dtype: of the result, as safetensors names it; null: the base's own.
    """

    base: str
    models: list[tuple[str, float]]
    recipe: Recipe
    dtype: str | None


def read_mergekit(path: Path) -> MergekitMerge:
    """
    Read the YAML file at `path`.

    Raises:
        InvalidRequest: it cannot be read, or asks for what is not the same here; the message says
            what.
    """
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        document = _Document.model_validate(loaded)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidRequest(f"{path.name} cannot be read: {str(error).splitlines()[0]}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise InvalidRequest(
            f"{path.name}: {where}: {first['msg']}.",
            hint="Read are merge_method, base_model, models with parameters, parameters, dtype and "
            "out_dtype; slices and gradients are not.",
        ) from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{path.name} cannot be read: {error}.") from None
    try:
        return _translated(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = str(first["loc"][0]).replace("server_lr", "lambda")
        raise InvalidRequest(f"{path.name}: {where}: {first['msg']}.") from None


def _translated(document: _Document) -> MergekitMerge:
    method = document.merge_method
    if method not in SUPPORTED:
        raise InvalidRequest(
            f"merge_method {method!r} is not one that both have.",
            hint="Both have: " + ", ".join(SUPPORTED) + ".",
        )
    base, entries = _base(document)
    if document.tokenizer_source not in (None, "base", base):
        raise InvalidRequest(
            f"tokenizer_source {document.tokenizer_source!r}: the tokenizer is always the base's.",
        )
    shared = _Values("parameters", document.parameters)
    models = [_Values(entry.model, entry.parameters, shared) for entry in entries]
    recipe = _recipe(method, shared, models)
    needs_weight = method not in ("model_stock", "sce")
    merge = MergekitMerge(
        base=base,
        models=[
            (entry.model, values.number("weight", None) if needs_weight else 1.0)
            for entry, values in zip(entries, models, strict=True)
        ],
        recipe=recipe,
        dtype=_dtype(document),
    )
    for values in [shared, *models]:
        values.check_all_read()
    return merge


def _base(document: _Document) -> tuple[str, list[_Entry]]:
    """Return the base, and the models that are not it."""
    if document.base_model is None:
        if document.merge_method != "linear":
            raise InvalidRequest(f"merge_method {document.merge_method!r} needs a base_model.")
        # A mean of models is the same whichever of them the updates are counted from.
        return document.models[0].model, document.models
    if document.merge_method == "linear":
        if all(entry.model != document.base_model for entry in document.models):
            raise InvalidRequest(
                "linear: the base_model is not among the models.",
                hint="List it with a weight, as every other model, or leave base_model out.",
            )
        return document.base_model, document.models
    others = [entry for entry in document.models if entry.model != document.base_model]
    if not others:
        raise InvalidRequest("No model but the base is given.")
    return document.base_model, others


def _dtype(document: _Document) -> str | None:
    name = document.out_dtype or document.dtype
    if name is None:
        return None
    if name not in DTYPES:
        raise InvalidRequest(f"dtype {name!r} is none of {', '.join(DTYPES)}.")
    return DTYPES[name]


class _Values:
    """Parameters of one model, or of the document; remembers which were asked for."""

    def __init__(
        self, where: str, values: Mapping[str, Any], otherwise: _Values | None = None
    ) -> None:
        self.where = where
        self.values = dict(values)
        self.otherwise = otherwise
        # Only a way of saving memory there, and computed in float32 here whatever it says.
        self.read = {"int8_mask"}

    def get(self, name: str) -> Any:
        self.read.add(name)
        shared = None if self.otherwise is None else self.otherwise.get(name)
        return self.values.get(name, shared)

    def number(self, name: str, default: float | None) -> float:
        value = self.get(name)
        value = default if value is None else value
        if value is None:
            raise InvalidRequest(f"{self.where}: the parameter {name!r} is missing.")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidRequest(
                f"{self.where}: {name!r} must be one number here; "
                "gradients and filters by tensor name are not read."
            )
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise InvalidRequest(f"{self.where}: {name!r} must be true or false.")
        return value

    def check_all_read(self) -> None:
        unread = sorted(set(self.values) - self.read)
        if unread:
            raise InvalidRequest(f"{self.where}: the parameter {unread[0]!r} is not read here.")


def _recipe(method: str, shared: _Values, models: list[_Values]) -> Recipe:
    if method == "model_stock":
        if shared.flag("filter_wise", False):
            raise InvalidRequest("filter_wise: model_stock works tensor by tensor here.")
        return Recipe(method="model_stock")
    if method == "sce":
        topk = shared.number("select_topk", 1.0)
        return Recipe(method="sce", parameters={"select_topk": topk})
    if method == "linear":
        if not shared.flag("normalize", True):
            raise InvalidRequest(
                "normalize false: a sum of whole models is no sum of updates.",
                hint="Use task_arithmetic with a base_model.",
            )
        return Recipe(method="weighted_mean")
    normalize = shared.flag("normalize", method in ("ties", "della"))
    scale = shared.number("lambda", 1.0)
    if method == "task_arithmetic":
        return _arithmetic(normalize, scale)
    return _sparse(method, normalize, scale, shared, models)


def _arithmetic(normalize: bool, scale: float, dare: Dare | None = None) -> Recipe:
    return Recipe(
        method="weighted_mean",
        parameters={"normalize": normalize},
        server_lr=scale,
        dare=dare,
    )


def _sparse(
    method: str, normalize: bool, scale: float, shared: _Values, models: list[_Values]
) -> Recipe:
    density = _common("density", models, 1.0)
    _check_rescale(method, shared)
    if method == "dare_linear":
        return _arithmetic(normalize, scale, Dare(density=density))
    common = {"normalize": normalize, "scale": scale}
    if method == "dare_ties":
        parameters = {**common, "density": 1.0}
        return Recipe(method="ties", parameters=parameters, dare=Dare(density=density))
    common["density"] = density
    if method == "ties":
        return Recipe(method="ties", parameters=common)
    common["elect_sign"] = method in ("breadcrumbs_ties", "della")
    if method.startswith("breadcrumbs"):
        gamma = _common("gamma", models, 0.01)
        return Recipe(method="breadcrumbs", parameters={**common, "gamma": gamma})
    epsilon = _common("epsilon", models, 0.15)
    return Recipe(method="della", parameters={**common, "epsilon": epsilon})


def _check_rescale(method: str, shared: _Values) -> None:
    """What is dropped by chance is always rescaled here, what is dropped by size never."""
    by_chance = method.startswith(("dare", "della"))
    if shared.flag("rescale", by_chance) != by_chance:
        raise InvalidRequest(
            f"rescale {str(not by_chance).lower()}: {method} "
            f"{'always' if by_chance else 'never'} rescales here."
        )


def _common(name: str, models: list[_Values], default: float) -> float:
    found = {values.number(name, default) for values in models}
    if len(found) > 1:
        raise InvalidRequest(f"{name!r} must be the same for all models here.")
    return found.pop()
