"""Sizes of experiments for a machine: what differs from the settings' own defaults, as YAML."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml
from pydantic import ValidationError

from coldfusion_shared.errors import InvalidRequest, UnknownName
from experiments.settings import Settings


def names() -> list[str]:
    """Return the names of all presets."""
    found = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml"))


def settings_of(preset: str, protocol: str, given: Mapping[str, Any]) -> Settings:
    """
    Return a protocol's settings.

    Args:
        preset: name of the preset.
        protocol: its name; a preset may have sizes of its own for it.
        given: what differs from the preset.

    Raises:
        UnknownName: there is no such preset.
        InvalidRequest: a value makes no sense; it is named.
    """
    if preset not in names():
        raise UnknownName(f"No preset is named {preset!r}.", hint=f"Known: {', '.join(names())}.")
    text = (files(__name__) / f"{preset}.yaml").read_text(encoding="utf-8")
    found = yaml.safe_load(text)
    own = found.get("protocols", {}).get(protocol, {})
    try:
        return Settings.model_validate(merged(merged(found["settings"], own), given))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"Setting {where}: {first['msg']}.") from None


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with the values of `above`, mappings within them merged likewise."""
    found = dict(below)
    for name, value in above.items():
        inner = found.get(name)
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            found[name] = merged(inner, value)
        else:
            found[name] = value
    return found
