"""Data sets of the Hugging Face Hub, by the `datasets` library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coldfusion_shared.data.folder import SPLIT_NAMES
from coldfusion_shared.data.table import Table
from coldfusion_shared.errors import BadData

# Columns that hold labels, though their type does not say so.
_LABELS = frozenset(("label", "labels", "answer", "answerkey"))


def read_hub(source: str) -> dict[str, Table]:
    """Load the data set called ``name`` or ``name:config``, from the cache or the Hub."""
    import datasets

    name, _, config = source.partition(":")
    try:
        loaded = datasets.load_dataset(name, config or None)
    except Exception as error:  # the library documents no common base of what it raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadData(
            f"{source!r} is no file or folder here, and could not be loaded as a Hugging Face "
            f"data set: {reason}",
            hint="Check the spelling of the path, or give NAME or NAME:CONFIG of a data set and "
            "check the network.",
        ) from error
    return tables_of(source, loaded)


def tables_of(source: str, loaded: Mapping[str, Any]) -> dict[str, Table]:
    """Turn a loaded data set's splits into tables; a split that hides its labels is left out."""
    tables: dict[str, Table] = {}
    for name, rows in loaded.items():
        split = SPLIT_NAMES.get(name.lower())
        if split and split not in tables and not _hides_labels(rows):
            tables[split] = _table(f"{source}, split {name}", rows)
    if "train" not in tables:
        raise BadData(
            f"{source!r} has no labelled train split; it has {', '.join(loaded)}.",
            hint="Save the split that you mean as a Parquet file and give that.",
        )
    return tables


def _table(where: str, rows: Any) -> Table:
    # Others, such as images, would be decoded one by one for nothing.
    names = [name for name, feature in rows.features.items() if _is_plain(feature)]
    return Table(
        where,
        {name: rows[name][:] for name in names},
        range(1, len(rows) + 1),
        unit="row",
        classes={name: tuple(names) for name, names in _classes(rows).items()},
    )


def _is_plain(feature: Any) -> bool:
    """Return whether a column holds values, or lists and objects of them."""
    import datasets

    if isinstance(feature, dict):
        return all(map(_is_plain, feature.values()))
    # Lists have classes that differ from one release of the library to the next.
    if hasattr(feature, "feature"):
        return _is_plain(feature.feature)
    return isinstance(feature, datasets.Value | datasets.ClassLabel)


def _classes(rows: Any) -> dict[str, list[str]]:
    """Return the names of integers by column, where these are values or lists of them."""
    innermost = {name: getattr(one, "feature", one) for name, one in rows.features.items()}
    return {name: one.names for name, one in innermost.items() if hasattr(one, "names")}


def _hides_labels(rows: Any) -> bool:
    # Benchmarks publish their test inputs with -1, or nothing, in place of every label.
    named = {name for name, feature in rows.features.items() if hasattr(feature, "names")}
    usual = {name for name in rows.features if name.lower() in _LABELS}
    return any(all(label in (-1, None, "") for label in rows[name]) for name in named | usual)
