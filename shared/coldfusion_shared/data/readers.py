"""From a path or a name to a checked data set."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from coldfusion_shared.data.checks import check_count, check_divided, check_size
from coldfusion_shared.data.choice import choose_task
from coldfusion_shared.data.columns import require_column, told_columns
from coldfusion_shared.data.dataset import TextDataset
from coldfusion_shared.data.folder import read_card, read_file, read_splits
from coldfusion_shared.data.formats import discover
from coldfusion_shared.data.hub import read_hub
from coldfusion_shared.data.splits import complete
from coldfusion_shared.data.table import Table
from coldfusion_shared.errors import BadData
from coldfusion_shared.tasks.architectures import Architecture

# What may be a data set of the Hub: NAME or OWNER/NAME, perhaps with :CONFIG.
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(:[\w.-]+)?")
# The roles whose integers dataset.json may have names for.
_NAMED_ROLES = ("label", "tags")


@dataclass(frozen=True)
class _Source:
    """What was found: a table for each split that there is, and the labels if they are listed."""

    name: str
    tables: Mapping[str, Table]
    labels: tuple[str, ...] = ()


def load_dataset(
    source: str,
    *,
    columns: Mapping[str, str] | None = None,
    task: str | None = None,
    architecture: Architecture | None = None,
    seed: int = 13,
    required: Collection[str] = (),
) -> TextDataset:
    """
    Read a data set; splits that it lacks are made of its training examples.

    Args:
        source: a CSV, TSV, JSONL, Parquet, .conll or .txt file; a folder with one such file a
            split and perhaps a dataset.json; or ``name`` or ``name:config`` of a Hugging Face data
            set.
        columns: the columns of some roles, by role; the others are found by their usual names.
        task: the kind of task; null: the first one that fits the columns.
        architecture: of the base that is to learn from it, which decides between tasks where the
            data alone do not.
        seed: decides which examples a missing split is made of.
        required: splits that are refused when missing.

    Raises:
        BadData: it cannot be read or learnt from; the message says where, the hint what to do.
        UnknownName: there is no task of that name.
    """
    try:
        return _loaded(source, columns or {}, task, architecture, seed, required)
    except MemoryError as error:
        raise BadData(
            f"{source} does not fit into this machine's memory.",
            hint="Give a part of it, or use a machine with more memory.",
        ) from error


def _loaded(
    source: str,
    columns: Mapping[str, str],
    task: str | None,
    architecture: Architecture | None,
    seed: int,
    required: Collection[str],
) -> TextDataset:
    found = _open(source)
    for table in found.tables.values():
        _require_rows(table)
    _require_splits(source, found.tables, required)
    check_size(source, found.tables)
    chosen, places = choose_task(
        found.tables["train"], columns, name=task, architecture=architecture
    )
    tables = {split: _prepared(found, table, places) for split, table in found.tables.items()}
    labels, given = chosen.parse(tables, places)
    check_count(source, len(labels))
    parts, made = complete(given, chosen.inputs, seed)
    notes = (told_columns(found.tables["train"], chosen.roles, places), *made)
    dataset = TextDataset(found.name, chosen.name, labels, **parts, notes=notes)
    check_divided(dataset)
    chosen.check(dataset)
    return dataset


def _open(source: str) -> _Source:
    path = Path(source).expanduser()
    if path.is_dir():
        card = read_card(path)
        name = str(card.get("name") or path.resolve().name)
        return _Source(_written(name), read_splits(path), tuple(card.get("labels", ())))
    if path.exists():
        return _Source(_written(path.stem), {"train": read_file(path)})
    if _looks_like_path(source):
        raise BadData(f"{source} does not exist.", hint="Check the path and the spelling.")
    return _Source(source, read_hub(source))


def _written(name: str) -> str:
    # Names of files may be no text, which cannot be written down.
    return name.encode("utf-8", "replace").decode()


def _require_rows(table: Table) -> None:
    if not table.lines:
        raise BadData(f"{table.where} is empty.", hint="It needs named columns and examples.")


def _require_splits(source: str, tables: Mapping[str, Table], required: Collection[str]) -> None:
    for split in required:
        if split not in tables:
            raise BadData(
                f"{source} has no {split} split with labels.",
                hint=f"Give a folder with a file for it, such as {split}.jsonl, beside the "
                "training examples.",
            )


def _looks_like_path(source: str) -> bool:
    return not _HUB_NAME.fullmatch(source) or Path(source).suffix.lower() in discover()


def _prepared(found: _Source, table: Table, places: Mapping[str, str]) -> Table:
    """Refuse a split that lacks a column of the training split; give integers their names."""
    for column in places.values():
        require_column(table, column)
    named = [places[role] for role in _NAMED_ROLES if role in places]
    return replace(table, classes=dict.fromkeys(named, found.labels)) if found.labels else table
