"""Reads a compose file as `docker compose` does: variables filled in, services with their parts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"

# $$ | $NAME | ${NAME} | ${NAME:-default} | ${NAME:?what is missing}
_VARIABLE = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<plain>\w+)|\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<word>[^}]*))?\})"
)


class MissingVariable(Exception):
    """A variable without which the file says that it cannot be used."""


@dataclass(frozen=True)
class Service:
    """What a container would run."""

    name: str
    data: dict[str, Any]
    environment: dict[str, str]

    @property
    def command(self) -> list[str]:
        """Its own words, without the image's entrypoint."""
        return [str(word) for word in self.data.get("command", [])]

    @property
    def health(self) -> list[str] | None:
        """The command of its health check; null: it has none."""
        check = self.data.get("healthcheck", {})
        if "test" not in check:
            return None
        kind, *words = check["test"]
        assert kind == "CMD", "a shell is not needed, and not in every image"
        return [str(word) for word in words]

    @property
    def replicas(self) -> int:
        """How many of it run."""
        return int(self.data.get("deploy", {}).get("replicas", 1))

    @property
    def depends_on(self) -> dict[str, dict[str, Any]]:
        """The services before it, with their conditions."""
        return dict(self.data.get("depends_on", {}))

    def active(self, profiles: set[str]) -> bool:
        """Return whether `up` starts it."""
        wanted = set(self.data.get("profiles", []))
        return not wanted or bool(wanted & profiles)


def read_env(file: Path) -> dict[str, str]:
    """Return the variables of an env file; later lines may name earlier ones."""
    found: dict[str, str] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, value = line.partition("=")
            found[name] = interpolate(value, found)
    return found


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Fill variables in; raises `MissingVariable`."""

    def value(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        found = variables.get(match["plain"] or match["name"], "")
        if found or match["kind"] is None:
            return found
        if match["kind"] == "?":
            raise MissingVariable(match["name"])
        return str(match["word"])

    return _VARIABLE.sub(value, text)


def load(variables: Mapping[str, str], file: Path = FILE) -> dict[str, Any]:
    """Return the whole file with `variables` filled in; raises `MissingVariable`."""
    filled = _filled(yaml.safe_load(file.read_text(encoding="utf-8")), variables)
    assert isinstance(filled, dict)
    return filled


def services(variables: Mapping[str, str], file: Path = FILE) -> dict[str, Service]:
    """Return the file's services by name; raises `MissingVariable`."""
    return {
        name: Service(name, data, _environment(data.get("environment", {}), variables))
        for name, data in load(variables, file)["services"].items()
    }


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, variables) for item in value]
    return interpolate(value, variables) if isinstance(value, str) else value


def _environment(given: dict[str, Any], variables: Mapping[str, str]) -> dict[str, str]:
    """A name without a value takes the variable of that name, if there is one."""
    found = {name: variables.get(name) if value is None else value for name, value in given.items()}
    return {name: str(value) for name, value in found.items() if value is not None}
