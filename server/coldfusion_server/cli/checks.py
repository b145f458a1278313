"""`coldfusion-server checks`: screening checks, with their parameters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from coldfusion_server.cli.options import Json
from coldfusion_server.cli.output import show
from coldfusion_shared.errors import UnknownName

if TYPE_CHECKING:
    from coldfusion_shared.schemas.fusion import ParameterDescription
    from coldfusion_shared.schemas.screening import CheckDescription


def checks(
    name: Annotated[str | None, typer.Argument(help="One check; default: all of them.")] = None,
    as_json: Json = False,
) -> None:
    """List the screening checks with their parameters, which model policy --screening sets."""
    from coldfusion_shared.screening.catalogue import catalogue

    found = [entry for entry in catalogue() if name in (None, entry.name)]
    if not found:
        raise UnknownName(
            f"No screening check is named {name!r}.",
            hint="coldfusion-server checks lists them all.",
        )
    text = "\n".join(line for entry in found for line in _lines(entry))
    show([entry.model_dump(mode="json") for entry in found], as_json, text)


def _lines(entry: CheckDescription) -> list[str]:
    lines = [f"{entry.name}: {entry.summary}"]
    for parameter in entry.parameters:
        lines += _parameter(entry.name, parameter)
    return [*lines, ""]


def _parameter(check: str, parameter: ParameterDescription) -> list[str]:
    from coldfusion_shared.fusion.catalogue import value_range

    default = json.dumps(parameter.default)
    return [
        f"    --screening {check}.{parameter.name}={default}  ({value_range(parameter)})",
        f"        {parameter.description}",
    ]
