"""Raw text: what language models learn from, with nothing said about it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from coldfusion_shared.data.dataset import Split
from coldfusion_shared.data.values import is_given, texts_of
from coldfusion_shared.errors import BadData
from coldfusion_shared.tasks.roles import Role

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import TextDataset
    from coldfusion_shared.data.table import Table

RAW_TEXT = Role(
    "text",
    (
        *("text", "content", "document", "sentence", "article", "body", "paragraph", "review"),
        *("comment", "tweet", "abstract"),
    ),
    "the text",
)


# What beside other columns says nothing that could be learnt.
_BESIDE = frozenset(
    ("id", "idx", "index", "guid", "uuid", "doc_id", "url", "title", "date", "timestamp", "meta")
)


class RawText:
    """What is the same for all tasks that learn from nothing but texts."""

    metric = "accuracy"
    roles = (RAW_TEXT,)
    inputs = ("text",)
    generates = False

    def parse(
        self, tables: Mapping[str, Table], columns: Mapping[str, str]
    ) -> tuple[tuple[str, ...], dict[str, Split]]:
        """Return no labels, and the texts that are not empty: raw text has blank lines."""
        return (), {name: _split(table, columns["text"]) for name, table in tables.items()}

    def check(self, dataset: TextDataset) -> None:
        """Whatever could be parsed will do."""


def is_raw(table: Table, columns: Mapping[str, str]) -> bool:
    """Return whether a table has nothing but the text: what has labels is no raw text."""
    return has_nothing_else(table, (columns["text"],))


def has_nothing_else(table: Table, used: Collection[str]) -> bool:
    """Return whether all columns but those used say nothing that could be learnt."""
    others = set(table.columns) - set(used)
    return all(name.strip().lower() in _BESIDE for name in others)


def _split(table: Table, column: str) -> Split:
    cells = table.columns[column]
    said = [row for row, cell in enumerate(cells) if is_given(cell)]
    if not said:
        raise BadData(
            f"{table.where}: no example has a text in column {column!r}.",
            hint="Say which column holds the texts with --column text=NAME.",
        )
    kept = replace(
        table,
        columns={column: [cells[row] for row in said]},
        lines=[table.lines[row] for row in said],
    )
    return Split({"text": texts_of(kept, column)})
