"""``contribution.toml``: what `contribute` is told again and again. Flags win over it."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer
from pydantic import TypeAdapter, ValidationError

from coldfusion_shared.finetune.settings import FinetuneSettings

FILE = "contribution.toml"
SETTINGS = "settings"
COLUMNS = "columns"

# Of one call and not of a contribution. The server is among them: a file that came with somebody's
# data must not decide where the token in COLDFUSION_TOKEN is sent to.
_OF_A_CALL = {"config", "server", "progress", "dry_run", "as_json", "quiet", "help"}
# The option that the file's table of columns stands for.
_COLUMN = "column"


def read_file(context: typer.Context, given: Path | None) -> Path | None:
    """
    Let the values of a file stand for the flags that are not given, and return the file.

    Without `given` it is `FILE` in the current folder, if there is one. A `--column` that is given
    takes the place of the file's whole table of columns.

    Raises:
        typer.BadParameter: the file cannot be read, or a key or a value in it is no good.
    """
    file = given or Path(FILE)
    if context.resilient_parsing or (given is None and not file.is_file()):
        return None
    known = parameters()
    values: dict[str, Any] = {}
    for section, key, value in _entries(file):
        if section == COLUMNS:
            values.setdefault(_COLUMN, []).append(f"{key}={value}")
            continue
        if key not in _keys(known, section):
            raise _bad(file, _unknown(known, section, key))
        try:
            # As of JSON: a path may be a text, and true is no number.
            TypeAdapter(known[key].kind).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            said = error.errors()[0]["msg"]
            raise _bad(file, f"{key} = {value!r}: {said}") from None
        values[key] = value
    context.default_map = values
    return file


Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        callback=read_file,
        is_eager=True,
        help=f"Read what is not given here from this file; by default from {FILE} in the current "
        "folder, if there is one. `coldfusion-client init` writes it.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Parameter:
    """An option or argument of `contribute`: its type, how it is described, and its default."""

    kind: Any
    metavar: str | None
    help: str
    default: Any


def parameters() -> dict[str, Parameter]:
    """Return what a file may set, by name: all parameters of `contribute` but those of a call."""
    from coldfusion_client.cli.contribute import contribute

    # By the function's own signature: what typer makes of it changes from version to version.
    hints = get_type_hints(contribute, include_extras=True)
    found = {}
    for name, parameter in signature(contribute).parameters.items():
        if name not in _OF_A_CALL:
            kind, described = get_args(hints[name])[:2]
            default = None if parameter.default is Signature.empty else parameter.default
            found[name] = Parameter(kind, described.metavar, described.help or "", default)
    return found


def is_column(name: str) -> bool:
    """Return whether the parameter `name` is the one that names columns."""
    return name == _COLUMN


def is_setting(name: str) -> bool:
    """Return whether `name` belongs into the file's table of settings."""
    return name in FinetuneSettings.model_fields


def _entries(file: Path) -> Iterator[tuple[str | None, str, Any]]:
    """Yield section, key and value; null is the part before the first section."""
    for key, value in _parsed(file).items():
        if key in {SETTINGS, COLUMNS} and isinstance(value, dict):
            yield from ((key, name, _plain(file, name, one)) for name, one in value.items())
        else:
            yield None, key, _plain(file, key, value)


def _parsed(file: Path) -> dict[str, Any]:
    try:
        # Editors on Windows like to begin a file with a mark of its byte order.
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise _bad(file, str(error.strerror)) from None
    except UnicodeDecodeError:
        raise _bad(file, "it is not UTF-8; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        hint = "in a path with backslashes, use 'single quotes'"
        raise _bad(file, f"it is not TOML: {error} ({hint})") from None


def _plain(file: Path, key: str, value: Any) -> Any:
    if isinstance(value, dict):
        raise _bad(file, f"there is no section [{key}]; there are [{COLUMNS}] and [{SETTINGS}]")
    if not isinstance(value, str | int | float):
        raise _bad(file, f"{key}: a text, a number, true or false is meant here")
    return value


def _keys(known: dict[str, Parameter], section: str | None) -> list[str]:
    chosen = [name for name in known if is_setting(name) == (section == SETTINGS)]
    return [name for name in chosen if name != _COLUMN]


def _unknown(known: dict[str, Parameter], section: str | None, key: str) -> str:
    where = f" in [{section}]" if section else ""
    if key in {_COLUMN, COLUMNS}:
        return f"columns have a table of their own: [{COLUMNS}], below it such as label = 'verdict'"
    nearest = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    if not nearest:
        return f"nothing is called {key}{where}; `coldfusion-client init` writes all that there is"
    if nearest[0] == key:
        meant = "before the first section" if section else f"below [{SETTINGS}]"
        return f"{key} belongs {meant}"
    return f"nothing is called {key}{where}; do you mean {nearest[0]}?"


def _bad(file: Path, what: str) -> typer.BadParameter:
    return typer.BadParameter(what, param_hint=str(file))
