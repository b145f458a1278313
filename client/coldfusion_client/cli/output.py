"""The one place that writes: for people with rich, for programs as JSON, or next to nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from coldfusion_client.cli.text import clean, harmless
from coldfusion_client.reporting import Bar, Silent, Unit
from coldfusion_shared.errors import ColdFusionError

if TYPE_CHECKING:
    from rich.console import Console


# Spaces between the columns of a table.
_GAP = 2


class Output:
    """
    Results go to standard output, everything else to standard error.

    With `as_json` standard output holds one JSON document (`watch`: one a line) and nothing else,
    with `quiet` only what a script would go on with. Every text is cleaned: parts of it come from
    other people.
    """

    def __init__(
        self, *, as_json: bool = False, quiet: bool = False, progress: bool = True
    ) -> None:
        """Write in one of the three manners; without `progress` no bars, but the sentences."""
        self.as_json = as_json
        self.quiet = quiet
        self.progress = progress

    @cached_property
    def _terminal(self) -> Console | None:
        if not sys.stderr.isatty():
            return None
        from rich.console import Console

        return Console(stderr=True)

    def say(self, text: str) -> None:
        """Tell a person what happens."""
        if not (self.quiet or self.as_json):
            self._tell(text)

    def warn(self, text: str) -> None:
        """Tell a person, or who reads a program's log, what may need an act."""
        if not self.quiet:
            self.alert(text)

    def alert(self, text: str) -> None:
        """Tell what has to be known, also with `quiet`: nothing else says it."""
        self._tell(f"Note: {text}")

    def bar(self, label: str, total: int, unit: Unit) -> AbstractContextManager[Bar]:
        """Show how far a long thing is, until the context ends."""
        if self.quiet or self.as_json or not self.progress:
            return Silent().bar(label, total, unit)
        from coldfusion_client.cli.bars import line_bar, terminal_bar

        if self._terminal is not None:
            return terminal_bar(self._terminal, label, total, unit)
        return line_bar(self._tell, label, total, unit)

    def result(self, data: Any, text: str, essence: str | None = None) -> None:
        """
        Write what a command was called for.

        Args:
            data: for programs.
            text: for people; others' words in it cleaned, so that the lines are ours.
            essence: with `quiet`, if there is anything that a script goes on with.
        """
        if self.as_json:
            _write(json.dumps(data))
        elif not self.quiet:
            _write(harmless(text))
        elif essence is not None:
            _write(harmless(essence))

    def table(self, data: Any, titles: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Write a table: drawn on a terminal that is wide enough, tab-separated lines elsewhere."""
        if not rows and not (self.as_json or self.quiet):
            self.say("None.")
            return
        cells = [[clean(str(cell)) for cell in row] for row in rows]
        if self.as_json or self.quiet or not sys.stdout.isatty():
            lines = ["\t".join(row) for row in cells]
            self.result(data, "\n".join(["\t".join(titles), *lines]), "\n".join(lines) or None)
            return
        from rich.cells import cell_len
        from rich.console import Console

        console = Console()
        columns = zip(titles, *cells, strict=True)
        width = sum(max(map(cell_len, column)) + _GAP for column in columns) - _GAP
        if width <= console.width:
            _draw(console, titles, cells)
        else:
            # A name that is cut is of no use to who wants to copy it.
            blocks = ["\n".join(map(": ".join, zip(titles, row, strict=True))) for row in cells]
            _write("\n\n".join(blocks))

    def error(self, error: ColdFusionError, status: int) -> None:
        """Write an error: a sentence, the tensors at fault, and what to do next."""
        self.error_document(error, status)
        self._tell(f"Error: {error.message}")
        if error.tensors:
            self._tell(f"Tensors: {', '.join(error.tensors)}")
        if error.hint:
            self._tell(error.hint)

    def error_document(self, error: ColdFusionError, status: int) -> None:
        """Write an error for programs, if it is one that reads."""
        if self.as_json:
            fields = {"code": error.code, "message": error.message, "hint": error.hint}
            tensors = list(error.tensors)
            _write(json.dumps({"error": {**fields, "tensors": tensors, "exit_code": status}}))

    def interrupted(self, status: int) -> None:
        """Write that the person has ended it."""
        told = "Interrupted. The same command goes on where it stopped."
        if self.as_json:
            fields: dict[str, Any] = {"code": "interrupted", "message": told, "hint": None}
            _write(json.dumps({"error": {**fields, "tensors": [], "exit_code": status}}))
        self.say(told)

    def _tell(self, text: str) -> None:
        line = clean(text)
        if self._terminal is not None:
            self._terminal.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()


def before_options(words: Sequence[str]) -> Output:
    """Return where to write while all that is known of the options are the words given."""
    # Here and not above: without the extra there is nothing to import, and that has to be said.
    from coldfusion_shared.finetune import processes

    return Output(as_json="--json" in words and processes.is_first())


def _draw(console: Console, titles: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*titles, box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    console.print(drawn)


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
