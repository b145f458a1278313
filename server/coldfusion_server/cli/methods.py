"""`coldfusion-server methods`: fusion methods and server optimizers, with their parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from coldfusion_server.cli.options import Json
from coldfusion_server.cli.output import show
from coldfusion_shared.errors import UnknownName

if TYPE_CHECKING:
    from coldfusion_shared.fusion.methods import Parameters


def methods(
    name: Annotated[
        str | None, typer.Argument(help="One method or optimizer; default: all of them.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List fusion methods and server optimizers with their parameters."""
    from coldfusion_shared.fusion import optimizers
    from coldfusion_shared.fusion.methods import discover

    fusing = {key: _described(entry) for key, entry in _items(discover())}
    stepping = {key: _described(entry) for key, entry in _items(optimizers.discover())}
    if name is not None:
        fusing = {key: value for key, value in fusing.items() if key == name}
        stepping = {key: value for key, value in stepping.items() if key == name}
        if not fusing and not stepping:
            raise UnknownName(
                f"No fusion method or server optimizer is named {name!r}.",
                hint="coldfusion-server methods lists them all.",
            )
    sections = [("Fusion methods", fusing), ("Server optimizers", stepping)]
    text = "\n\n".join(_section(head, entries) for head, entries in sections if entries)
    show({"methods": fusing, "optimizers": stepping}, as_json, text)


def _items(registry: Any) -> list[tuple[str, Any]]:
    return [(name, registry[name]) for name in registry]


def _described(entry: Any) -> dict[str, Any]:
    return {
        "summary": entry.summary,
        "paper": entry.paper,
        "parameters": _parameters(entry.parameters),
    }


def _parameters(model: type[Parameters]) -> dict[str, Any]:
    return {
        name: {"default": field.default, "description": field.description}
        for name, field in model.model_fields.items()
    }


def _section(head: str, entries: dict[str, Any]) -> str:
    lines = [head]
    for name, entry in entries.items():
        lines += ["", f"  {name}: {entry['summary']}", f"      {entry['paper']}"]
        for parameter, about in entry["parameters"].items():
            default = "null" if about["default"] is None else about["default"]
            lines.append(f"      --param {parameter}={default}  {about['description']}")
    return "\n".join(lines)
