"""``init``: a ``contribution.toml`` with all that `contribute` can be told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any

import typer

from coldfusion_client.cli.completion import complete_model
from coldfusion_client.cli.options import AsJson, Quiet
from coldfusion_client.cli.order_file import (
    COLUMNS,
    FILE,
    SETTINGS,
    Parameter,
    is_column,
    is_setting,
    parameters,
)
from coldfusion_client.cli.output import Output
from coldfusion_client.cli.session import reported
from coldfusion_client.quoting import command_line
from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.finetune.settings import FinetuneSettings

_WIDTH = 90


def init(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="owner/name", autocompletion=complete_model),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="FILE_OR_DATASET", help="What to learn from.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to.")] = Path(FILE),
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """
    Write a contribution.toml: the options of contribute with their defaults, to be edited.

    In its folder, `coldfusion-client contribute` needs no more words; flags win over the file.
    """
    at = Output(as_json=as_json, quiet=quiet)
    with reported(at):
        from coldfusion_client.bases import model_name

        if model is not None:
            model_name(model)
        text = "\n".join(_lines({"model": model, "data": data})) + "\n"
        try:
            with out.open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
        except FileExistsError:
            raise InvalidRequest(
                f"{out} exists already; nothing in it was touched.",
                hint="Edit it, or name another file with --out.",
            ) from None
        at.say("Edit it, then give: coldfusion-client contribute" + _flag(out))
        at.result({"file": str(out.absolute())}, str(out), str(out))


def _flag(out: Path) -> str:
    return "" if out == Path(FILE) else f" --config {command_line(str(out))}"


def _lines(given: dict[str, str | None]) -> Iterator[str]:
    yield "# What `coldfusion-client contribute` reads; its flags win. A line with # is not read."
    yield "# Paths are relative to the folder in which the command is given. In a path with"
    yield "# backslashes, use 'single quotes'."
    known = parameters()
    for name, param in known.items():
        if not (is_setting(name) or is_column(name)):
            yield ""
            yield from _entry(name, param, given.get(name))
    yield ""
    yield from _comment("Columns by their roles; by default they are found by their usual names.")
    yield f"[{COLUMNS}]"
    yield "# text = 'review'"
    yield "# label = 'stars'"
    yield ""
    yield f"[{SETTINGS}]"
    for name, field in FinetuneSettings.model_fields.items():
        if name in known:
            yield ""
            yield from _comment(field.description or "")
            yield _assignment(name, field.get_default(), used=False)


def _entry(name: str, param: Parameter, given: str | None) -> Iterator[str]:
    yield from _comment(param.help)
    if given is not None:
        yield _assignment(name, given, used=True)
    elif param.default is None:
        yield _assignment(name, param.metavar or name, used=False)
    else:
        yield _assignment(name, param.default, used=False)


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in wrap(text[:1].upper() + text[1:], _WIDTH)]


def _assignment(name: str, value: Any, *, used: bool) -> str:
    return f"{'' if used else '# '}{name} = {toml_value(value)}"


def toml_value(value: Any) -> str:
    """Return `value` as TOML writes it; what is null has no value there, and becomes three dots."""
    if value is None:
        return "..."
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    text = str(value)
    # Literal, so that the backslashes of a Windows path are backslashes.
    literal = "'" not in text and text.isprintable()
    if literal:
        return f"'{text}'"
    # JSON's escapes are TOML's, but for pairs of surrogates, and JSON lets one more letter pass.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
