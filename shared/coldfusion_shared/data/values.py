"""From a table's cells to texts and labels; every cell that cannot be used is said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coldfusion_shared.data.table import Table
from coldfusion_shared.errors import BadData

# Of a column's cells, how many may be of another kind than the column is: mistakes, to be told.
STRANGE_SHARE = 0.05
# What squared is still a number of 32 bits, as the loss of a regression is.
LARGEST = 1e18


def nearly_all(told: Iterable[bool]) -> bool:
    """Return whether all are true but for a few, one at least: what those say are mistakes."""
    answers = list(told)
    strange = answers.count(False)
    return strange <= max(1.0, STRANGE_SHARE * len(answers)) and 2 * strange < len(answers)


def is_given(value: object) -> bool:
    """Return whether a cell holds anything."""
    return not _is_missing(value)


def texts_of(table: Table, column: str, role: str = "text") -> tuple[str, ...]:
    """Return a column of texts, none of which is empty; `role` is what it is to the task."""
    texts = tuple(_text(table, row, column, role) for row in range(len(table.lines)))
    empty = [row for row, text in enumerate(texts) if not text.strip()]
    if empty:
        raise BadData(
            f"{table.where}: {len(empty)} of {len(texts)} examples have no text in column "
            f"{column!r}, the first in {table.unit} {table.lines[empty[0]]}.",
            hint="Fill them in or delete those examples.",
        )
    return texts


def labels_of(table: Table, column: str) -> tuple[str, ...]:
    """Return a column of labels by their names; an integer's name is its digits."""
    cells = table.columns[column]
    labels = tuple(name_of(table, row, column, value) for row, value in enumerate(cells))
    missing = [row for row, label in enumerate(labels) if not label]
    if missing:
        raise _without_label(table, column, missing)
    return labels


def sorted_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Sort numbers by value, so that 10 comes after 9, and everything else by spelling."""
    distinct = set(labels)
    numeric = all(_is_whole(label.removeprefix("-")) for label in distinct)
    return tuple(sorted(distinct, key=lambda label: (int(label) if numeric else 0, label)))


def _is_whole(text: str) -> bool:
    # Python makes no number of thousands of digits.
    return text.isdecimal() and len(text) < 20


def numbers_of(table: Table, column: str) -> tuple[float, ...]:
    """Return a column of finite numbers, written as numbers or as text."""
    cells = table.columns[column]
    missing = [row for row, value in enumerate(cells) if _is_missing(value)]
    if missing:
        raise _without_label(table, column, missing)
    return tuple(_number(table, row, column, value) for row, value in enumerate(cells))


def number(value: object) -> float | None:
    """Return the number that a cell holds, finite and such that its square is, too; or null."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if abs(found) <= LARGEST else None


def _number(table: Table, row: int, column: str, value: object) -> float:
    found = number(value)
    if found is None:
        raise BadData(
            f"{table.at(row)}: column {column!r} holds {value!r:.40}, which is not a number"
            f"{' that can be learnt' if isinstance(value, float) else ''}.",
            hint=f"Write it with a point, like 3.5, and none beyond {LARGEST:.0e}; or say which "
            "column holds the label with --column label=NAME; or, if these are no numbers, add "
            "--task classification.",
        )
    return found


def _is_missing(value: object) -> bool:
    # NaN is how data frames write a missing number.
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def _without_label(table: Table, column: str, rows: Sequence[int]) -> BadData:
    return BadData(
        f"{table.where}: {len(rows)} of {len(table.lines)} examples have no label in column "
        f"{column!r}, the first in {table.unit} {table.lines[rows[0]]}.",
        hint="Label them or delete those examples.",
    )


def _text(table: Table, row: int, column: str, role: str) -> str:
    return text_of(table, row, column, role, table.columns[column][row])


def text_of(table: Table, row: int, column: str, role: str, value: object) -> str:
    """Return the text that a cell, or one of the values in it, holds; "" for none."""
    if value is None or value != value:  # NaN is how data frames write what is missing
        return ""
    if not isinstance(value, str):
        raise BadData(
            f"{table.at(row)}: column {column!r} holds {value!r:.40}, which is not a text.",
            hint="Write it as a text, or say which column holds the text with --column "
            f"{role}=NAME.",
        )
    return _whole_characters(table, row, column, value)


def _whole_characters(table: Table, row: int, column: str, text: str) -> str:
    # JSON can write half a surrogate pair, which no tokenizer and no file takes.
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadData(
            f"{table.at(row)}: the text in column {column!r} holds half a character.",
            hint="Correct the \\ud8.. escape or delete the example.",
        ) from error
    return text


def name_of(table: Table, row: int, column: str, value: object) -> str:
    """Return the name of a class that a cell, or one of the values in it, gives; "" for none."""
    if value is None or value != value:  # NaN is how data frames write a missing number
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int):
        raise BadData(
            f"{table.at(row)}: column {column!r} holds {value!r:.40}, which is not the name or "
            "number of a class.",
            hint="Say which column holds the label with --column label=NAME.",
        )
    name = _whole_characters(table, row, column, str(value).strip())
    if not name or column not in table.classes:
        return name
    names = table.classes[column]
    is_index = _is_whole(name) and int(name) < len(names)
    # A number is an index, unless it came as text and is a name itself, like five stars' "5".
    if name in names and not (is_index and isinstance(value, int)):
        return name
    if is_index:
        return names[int(name)]
    raise BadData(
        f"{table.at(row)}: the label {name!r:.60} is not one of the {len(names)} that the data set "
        "lists.",
        hint="Correct the label, or the labels in dataset.json.",
    )
