"""From a path or a name to a checked data set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from coldfusion_shared.data.checks import check_divided, check_labels, check_seen
from coldfusion_shared.data.columns import Columns, find_columns, require_columns
from coldfusion_shared.data.dataset import Split, TextDataset
from coldfusion_shared.data.folder import read_card, read_file, read_splits
from coldfusion_shared.data.formats import discover
from coldfusion_shared.data.hub import read_hub
from coldfusion_shared.data.splits import complete
from coldfusion_shared.data.table import Table
from coldfusion_shared.data.values import labels_of, texts_of
from coldfusion_shared.errors import BadData

# What may be a data set of the Hub: NAME or OWNER/NAME, perhaps with :CONFIG.
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(:[\w.-]+)?")


@dataclass(frozen=True)
class _Source:
    """What was found: a table for each split that there is, and the labels if they are listed."""

    name: str
    tables: Mapping[str, Table]
    labels: tuple[str, ...] = ()


def load_dataset(
    source: str,
    *,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    seed: int = 13,
) -> TextDataset:
    """
    Read a data set; splits that it lacks are made of its training examples.

    Args:
        source: a CSV, TSV, JSONL or Parquet file; a folder with one such file a split and perhaps
            a dataset.json; or ``name`` or ``name:config`` of a Hugging Face data set.
        text_column: the column of the text; null: the one with a usual name.
        text_pair_column: the column of the second text of a pair; null: the one that usually goes
            with the text's column, if it is there.
        label_column: the column of the label; null: the one with a usual name.
        seed: decides which examples a missing split is made of.

    Raises:
        BadData: it cannot be read or learnt from; the message says where, the hint what to do.
    """
    found = _open(source)
    for table in found.tables.values():
        _require_rows(table)
    columns = find_columns(
        found.tables["train"], text=text_column, text_pair=text_pair_column, label=label_column
    )
    tables = {split: _with_classes(found, t, columns) for split, t in found.tables.items()}
    labels = {split: labels_of(table, columns.label) for split, table in tables.items()}
    check_labels(source, labels)
    check_seen(tables, labels)

    names = tables["train"].classes.get(columns.label) or _sorted(set(labels["train"]))
    given = {split: _split(table, columns, labels[split], names) for split, table in tables.items()}
    parts, notes = complete(given, seed)
    dataset = TextDataset(found.name, names, **parts, notes=notes)
    check_divided(dataset)
    return dataset


def _open(source: str) -> _Source:
    path = Path(source).expanduser()
    if path.is_dir():
        card = read_card(path)
        name = str(card.get("name") or path.resolve().name)
        return _Source(name, read_splits(path), tuple(card.get("labels", ())))
    if path.exists():
        return _Source(path.stem, {"train": read_file(path)})
    if _looks_like_path(source):
        raise BadData(f"{source} does not exist.", hint="Check the path and the spelling.")
    return _Source(source, read_hub(source))


def _require_rows(table: Table) -> None:
    if not table.lines:
        raise BadData(f"{table.where} is empty.", hint="It needs named columns and examples.")


def _looks_like_path(source: str) -> bool:
    return not _HUB_NAME.fullmatch(source) or Path(source).suffix.lower() in discover()


def _with_classes(found: _Source, table: Table, columns: Columns) -> Table:
    require_columns(table, columns)
    return replace(table, classes={columns.label: found.labels}) if found.labels else table


def _split(
    table: Table, columns: Columns, labels: tuple[str, ...], names: tuple[str, ...]
) -> Split:
    index = {name: position for position, name in enumerate(names)}
    return Split(
        texts_of(table, columns.text),
        texts_of(table, columns.pair) if columns.pair else None,
        tuple(index[label] for label in labels),
    )


def _sorted(labels: set[str]) -> tuple[str, ...]:
    """Sort numbers by value, so that 10 comes after 9, and everything else by spelling."""
    numeric = all(label.removeprefix("-").isdecimal() for label in labels)
    return tuple(sorted(labels, key=lambda label: (int(label) if numeric else 0, label)))
