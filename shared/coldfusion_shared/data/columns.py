"""Which column holds the text, its second text and the label."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coldfusion_shared.data.table import Table
from coldfusion_shared.errors import BadData

# In the order in which they are looked for.
TEXT_NAMES = (
    *("text", "question", "sentence", "sentence1", "premise", "question1", "text1", "review"),
    *("content", "document", "comment", "tweet", "message", "body", "utterance", "title"),
)
LABEL_NAMES = (
    *("label", "labels", "class", "category", "target", "intent", "sentiment", "emotion"),
    *("topic", "rating", "stars", "gold_label"),
)
# The second text is looked for by the name of the first.
PAIR_NAMES = {
    "text": ("text_pair", "text2"),
    "text1": ("text2",),
    "sentence": ("sentence2",),
    "sentence1": ("sentence2",),
    "premise": ("hypothesis",),
    "question1": ("question2",),
    "question": ("sentence", "answer"),
}


@dataclass(frozen=True)
class Columns:
    """The names of the columns to read, as the file spells them."""

    text: str
    pair: str | None
    label: str


def find_columns(
    table: Table, *, text: str | None, text_pair: str | None, label: str | None
) -> Columns:
    """Take the columns that the caller names and find the others by their usual names."""
    text = _named(table, text) or _first(table, TEXT_NAMES)
    label = _named(table, label) or _first(table, LABEL_NAMES)
    if text is None:
        raise _not_found(table, "the text", "--text-column")
    if label is None:
        raise _not_found(table, "the label", "--label-column")
    pair = _named(table, text_pair) or _first(table, PAIR_NAMES.get(text.lower(), ()))
    return Columns(text, None if pair == label else pair, label)


def require_columns(table: Table, columns: Columns) -> None:
    """Refuse a split that lacks a column that the training split has."""
    for name in (columns.text, columns.pair, columns.label):
        _named(table, name)


def _named(table: Table, name: str | None) -> str | None:
    if name is None or name in table.columns:
        return name
    raise BadData(
        f"{table.where} has no column {name!r}.",
        hint=f"Its columns are: {_listed(table)}.",
    )


def _first(table: Table, names: Iterable[str]) -> str | None:
    spelt = {column.strip().lower(): column for column in table.columns}
    return next((spelt[name] for name in names if name in spelt), None)


def _not_found(table: Table, what: str, option: str) -> BadData:
    return BadData(
        f"No column of {table.where} has a usual name for {what}; its columns are: "
        f"{_listed(table)}.",
        hint=f"Say which one it is with {option}. The first line of a CSV or TSV file must name "
        "the columns.",
    )


def _listed(table: Table) -> str:
    return ", ".join(repr(column) for column in table.columns)
