"""Options that several commands share, and how to read a length of time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coldfusion_shared.errors import InvalidRequest

if TYPE_CHECKING:
    from coldfusion_server.services.context import Context

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of database, objects and signing secret."),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        help="SQLAlchemy URL; default: SQLite in the data folder. One with a password better by "
        "COLDFUSION_DATABASE_URL: other users see command lines.",
    ),
]
LogLevel = Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error.")]
LogJson = Annotated[bool, typer.Option("--log-json", help="Write logs as JSON lines.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_DURATION = re.compile(r"([0-9]{1,9})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_duration(text: str | None) -> timedelta | None:
    """Return the length of time of ``90d``, ``24h``, ``30m`` or ``10s``; null for null."""
    if text is None:
        return None
    match = _DURATION.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise InvalidRequest(
            f"{text!r} is no length of time.", hint="Write it like 90d, 24h, 30m or 10s."
        )
    try:
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        raise InvalidRequest(f"{text!r} is too long.") from None


def pairs(
    option: str, given: Sequence[str] | None, *, parsed: bool = False, last: bool = False
) -> dict[str, Any]:
    """
    Return the NAME=VALUE texts of a repeatable option as a dictionary.

    Args:
        option: what it is called, for messages.
        given: the texts.
        parsed: whether values are JSON where they can be: numbers, true, null.
        last: whether the last equals sign counts, and not the first.
    """
    found: dict[str, Any] = {}
    for text in given or ():
        # A folder's name may have an equals sign; a number has none.
        name, equals, value = text.rpartition("=") if last else text.partition("=")
        if not equals or not name:
            raise InvalidRequest(f"{option} {text!r} is not NAME=VALUE.")
        if name in found:
            raise InvalidRequest(f"{option} gives {name!r} twice.")
        found[name] = _value(value) if parsed else value
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def number_or_word(text: str | None) -> float | str | None:
    """Return `text` as a number, if it is one."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return text


@contextmanager
def opened(data_dir: Path | None, database_url: str | None) -> Iterator[Context]:
    """Open the Repository of the data folder for one command, its database up to date."""
    from coldfusion_server.db.migrate import check_revision
    from coldfusion_server.services.context import open_context
    from coldfusion_server.settings import load_settings

    context = open_context(load_settings(data_dir=data_dir, database_url=database_url))
    try:
        check_revision(context.database)
        yield context
    finally:
        context.close()
