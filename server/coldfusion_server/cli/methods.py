"""`coldfusion-server methods`: fusion methods and server optimizers, with their parameters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from coldfusion_server.cli.options import Json
from coldfusion_server.cli.output import show
from coldfusion_shared.errors import UnknownName

if TYPE_CHECKING:
    from coldfusion_shared.schemas.fusion import ParameterDescription, PluginDescription


def methods(
    name: Annotated[
        str | None, typer.Argument(help="One method or optimizer; default: all of them.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List fusion methods and server optimizers with their parameters."""
    from coldfusion_shared.fusion.catalogue import catalogue

    found = catalogue()
    fusing = [entry for entry in found.methods if name in (None, entry.name)]
    thinning = [entry for entry in found.before if name in (None, entry.name)]
    stepping = [entry for entry in found.optimizers if name in (None, entry.name)]
    if not fusing and not thinning and not stepping:
        raise UnknownName(
            f"No fusion method or server optimizer is named {name!r}.",
            hint="coldfusion-server methods lists them all.",
        )
    text = _section("Fusion methods", "--param", fusing)
    text += _section("In front of any method: --dare DENSITY --seed SEED", "", thinning)
    text += _section("Server optimizers", "--optimizer-param", stepping)
    data = {
        "methods": [entry.model_dump(mode="json") for entry in fusing],
        "before": [entry.model_dump(mode="json") for entry in thinning],
        "optimizers": [entry.model_dump(mode="json") for entry in stepping],
    }
    show(data, as_json, "\n".join(text))


def _section(head: str, option: str, entries: Sequence[PluginDescription]) -> list[str]:
    lines = [head, ""] if entries else []
    for entry in entries:
        lines += [f"  {entry.name}: {entry.summary}", f"      {entry.paper}"]
        for parameter in entry.parameters:
            lines += _parameter(option, parameter)
        lines.append("")
    return lines


def _parameter(option: str, parameter: ParameterDescription) -> list[str]:
    from coldfusion_shared.fusion.catalogue import value_range

    default = json.dumps(parameter.default)
    name = f"{option} {parameter.name}".strip()
    return [
        f"      {name}={default}  ({value_range(parameter)})",
        f"          {parameter.description}",
    ]
