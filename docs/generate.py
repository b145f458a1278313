"""
Writes docs/reference from the code: `python docs/generate.py`. A test checks that it is up to date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Made by docs/generate.py from the code; change the code, then run it again. -->\n"


def pages() -> dict[str, str]:
    """Return every page of the reference by file name."""
    from coldfusion_client.cli.app import app as client
    from coldfusion_server.cli import app as server

    return {
        "client.md": _program("coldfusion-client", client),
        "server.md": _program("coldfusion-server", server),
        "settings.md": _settings(),
        "errors.md": _errors(),
        "api.md": _api(),
        "methods.md": _methods(),
        "checks.md": _checks(),
    }


def _program(name: str, app: typer.Typer) -> str:
    command: Any = get_command(app)
    lines = [NOTE, f"# {name}", "", command.help or "", ""]
    for path, sub in _commands(name, command):
        lines += _command(path, sub)
    if command.epilog:
        lines += [command.epilog, ""]
    return "\n".join(lines)


def _commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    for name, sub in sorted(getattr(command, "commands", {}).items()):
        if getattr(sub, "commands", None):
            yield from _commands(f"{path} {name}", sub)
        else:
            yield f"{path} {name}", sub


def _command(path: str, command: Any) -> list[str]:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option"]
    usage = " ".join([path, *(_placeholder(param) for param in arguments), "[OPTIONS]"])
    lines = [f"## {path}", "", f"`{usage}`", "", (command.help or "").strip(), ""]
    rows = [(f"`{_placeholder(param)}`", _help(param)) for param in arguments]
    rows += [(_flags(param), _help(param)) for param in options if param.name != "help"]
    return lines + _table(("", ""), rows)


def _placeholder(argument: Any) -> str:
    return str(argument.metavar or argument.name).upper()


def _flags(param: Any) -> str:
    flags = [*param.opts, *param.secondary_opts]
    return ", ".join(f"`{flag}`" for flag in flags)


def _help(param: Any) -> str:
    text = (getattr(param, "help", None) or "").replace("\n", " ").replace("|", "\\|")
    variable = getattr(param, "envvar", None)
    return f"{text} Environment: `{variable}`." if variable else text


def _settings() -> str:
    from coldfusion_server.settings import FILE_NAME, Settings

    rows = [
        (f"`{name}`", f"`COLDFUSION_{name.upper()}`", f"`{field.default}`", field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    intro = (
        f"From the environment, `{FILE_NAME}` in the data folder, and flags; the later ones win.\n"
        "`coldfusion-server settings` shows what is in force."
    )
    head = ("setting", "environment", "default", "meaning")
    return "\n".join([NOTE, "# Settings of the server", "", intro, "", *_table(head, rows)])


def _errors() -> str:
    from coldfusion_client.cli.errors import exit_code
    from coldfusion_server.api.errors import STATUS
    from coldfusion_shared.errors import all_errors

    rows = [
        (
            f"`{error.code}`",
            str(STATUS[error.code]),
            str(exit_code(error.code)),
            error.__doc__ or "",
        )
        for error in all_errors()
    ]
    intro = "The code travels over the wire; status is HTTP's, exit is the client's exit code."
    head = ("code", "status", "exit", "meaning")
    return "\n".join([NOTE, "# Errors", "", intro, "", *_table(head, rows)])


def _methods() -> str:
    from coldfusion_shared.fusion.catalogue import catalogue

    found = catalogue()
    intro = (
        "What `--method` and `--optimizer` of `coldfusion-server fuse`, `model create` and\n"
        "`model policy` can name, with the parameters that `--param` and `--optimizer-param` set.\n"
        "How they are computed, and where that differs from other programs:\n"
        "[Fusing](../explanation/fusing.md)."
    )
    lines = [NOTE, "# Fusion methods and server optimizers", "", intro, ""]
    lines += ["## Methods", "", *_plugins(found.methods)]
    lines += ["## In front of any method", "", *_plugins(found.before)]
    lines += ["## Optimizers", "", *_plugins(found.optimizers)]
    return "\n".join(lines)


def _checks() -> str:
    from coldfusion_shared.screening.catalogue import catalogue

    intro = (
        "What each contribution is screened by. `--screening CHECK.PARAMETER=VALUE` of\n"
        "`coldfusion-server model create` and `model policy` sets the parameters for a model.\n"
        "What they measure and why: [Screening](../explanation/screening.md)."
    )
    lines = [NOTE, "# Screening checks", "", intro, ""]
    for entry in catalogue():
        lines += [f"## {entry.name}", "", f"{entry.summary[:1].upper()}{entry.summary[1:]}.", ""]
        lines += _parameters(entry.parameters)
    return "\n".join(lines)


def _parameters(parameters: Any) -> list[str]:
    from coldfusion_shared.fusion.catalogue import value_range

    rows = [
        (
            f"`{parameter.name}`",
            f"`{json.dumps(parameter.default)}`",
            value_range(parameter),
            parameter.description,
        )
        for parameter in parameters
    ]
    return _table(("parameter", "default", "value", "meaning"), rows)


def _plugins(entries: Any) -> list[str]:
    lines = []
    for entry in entries:
        kind = {"weights": "A weight method", "coordinates": "A coordinate method"}
        what = f"{kind[entry.kind]}: " if entry.kind in kind else ""
        lines += [f"### {entry.name}", "", f"{what}{entry.summary}. <{entry.paper}>", ""]
        lines += _parameters(entry.parameters)
    return lines


def _api() -> str:
    import tempfile

    from coldfusion_server.app import create_app
    from coldfusion_server.services.context import open_context
    from coldfusion_server.settings import load_settings

    with tempfile.TemporaryDirectory() as folder:
        context = open_context(load_settings(data_dir=Path(folder)))
        document = create_app(context).openapi()
        context.close()
    rows = [
        (f"`{method.upper()} {path}`", operation["description"].splitlines()[0])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    intro = (
        "The whole description, with schemas, is the OpenAPI document: `GET /v1/openapi.json`, or\n"
        "`coldfusion-server openapi`. Errors are problem details; see errors.md."
    )
    return "\n".join([NOTE, "# HTTP API", "", intro, "", *_table(("route", ""), rows)])


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, tuple("---" for _ in head), *rows)]
    return [*lines, ""]


if __name__ == "__main__":
    for file, text in pages().items():
        (REFERENCE / file).write_text(text, encoding="utf-8")
    sys.exit(0)
