"""From a table's cells to texts and labels; every cell that cannot be used is said."""

from __future__ import annotations

from collections.abc import Sequence

from coldfusion_shared.data.table import Table
from coldfusion_shared.errors import BadData


def texts_of(table: Table, column: str) -> tuple[str, ...]:
    """Return a column of texts, none of which is empty."""
    texts = tuple(_text(table, row, column) for row in range(len(table.lines)))
    empty = [row for row, text in enumerate(texts) if not text.strip()]
    if empty:
        raise BadData(
            f"{table.where}: {_of(empty, texts)} have no text in column {column!r}, the first in "
            f"{table.unit} {table.lines[empty[0]]}.",
            hint="Fill them in or delete those examples.",
        )
    return texts


def labels_of(table: Table, column: str) -> tuple[str, ...]:
    """Return a column of labels by their names; an integer's name is its digits."""
    labels = tuple(_label(table, row, column) for row in range(len(table.lines)))
    missing = [row for row, label in enumerate(labels) if not label]
    if missing:
        raise BadData(
            f"{table.where}: {_of(missing, labels)} have no label in column {column!r}, the first "
            f"in {table.unit} {table.lines[missing[0]]}.",
            hint="Label them or delete those examples.",
        )
    return labels


def _of(some: Sequence[object], every: Sequence[object]) -> str:
    return f"{len(some)} of {len(every)} examples"


def _text(table: Table, row: int, column: str) -> str:
    value = table.columns[column][row]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadData(
            f"{table.at(row)}: column {column!r} holds {value!r:.40}, which is not a text.",
            hint="Say which column holds the text with --text-column.",
        )
    # JSON can write half a surrogate pair, which no tokenizer takes.
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise BadData(
            f"{table.at(row)}: the text in column {column!r} holds half a character.",
            hint="Correct the \\ud8.. escape or delete the example.",
        )
    return value


def _label(table: Table, row: int, column: str) -> str:
    value = table.columns[column][row]
    if value is None or value != value:  # NaN is how data frames write a missing number
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int):
        raise BadData(
            f"{table.at(row)}: column {column!r} holds {value!r:.40}, which is not the name or "
            "number of a class.",
            hint="Say which column holds the label with --label-column.",
        )
    name = str(value).strip()
    return _class(table, row, column, name) if name and column in table.classes else name


def _class(table: Table, row: int, column: str, name: str) -> str:
    names = table.classes[column]
    is_index = name.isdecimal() and int(name) < len(names)
    # A number is an index, unless it came as text and is a name itself, like five stars' "5".
    if name in names and not (is_index and isinstance(table.columns[column][row], int)):
        return name
    if is_index:
        return names[int(name)]
    raise BadData(
        f"{table.at(row)}: the label {name!r} is not one of the {len(names)} that the data set "
        "lists.",
        hint="Correct the label, or the labels in dataset.json.",
    )
