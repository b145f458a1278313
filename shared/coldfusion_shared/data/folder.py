"""A folder with one file a split, and perhaps a dataset.json that describes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coldfusion_shared.data.formats import discover
from coldfusion_shared.data.table import Table, read_text
from coldfusion_shared.errors import BadData

SPLIT_NAMES = {
    **{"train": "train", "training": "train"},
    **{"validation": "validation", "valid": "validation", "val": "validation"},
    **{"dev": "validation", "test": "test"},
}


def read_file(path: Path) -> Table:
    """Read one data file by the format that its extension names."""
    formats = discover()
    suffix = path.suffix.lower()
    if suffix not in formats:
        raise BadData(
            f"{path} has an extension that no reader knows: {suffix or 'none'}.",
            hint=f"Known are {', '.join(formats)}; convert the file or rename it.",
        )
    return formats[suffix](path)


def read_splits(folder: Path) -> dict[str, Table]:
    """Read the files of a folder that are named after a split."""
    return {split: read_file(path) for split, path in _split_files(folder).items()}


def read_card(folder: Path) -> Mapping[str, Any]:
    """Return what the folder's dataset.json says; nothing if there is none."""
    path = folder / "dataset.json"
    if not path.is_file():
        return {}
    try:
        card: Any = json.loads(read_text(path))
    except ValueError as error:
        raise BadData(
            f"{path} is not valid JSON ({error}).", hint="Correct it or delete it."
        ) from error
    if isinstance(card, dict) and _are_names(card.get("labels", [])):
        return card
    raise BadData(
        f"{path}: expected an object in which `labels` is a list of different names.",
        hint='It should look like {"name": "reviews", "labels": ["bad", "good"]}.',
    )


def _are_names(labels: object) -> bool:
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        return False
    return len(set(labels)) == len(labels)


def _split_files(folder: Path) -> dict[str, Path]:
    formats = discover()
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        split = SPLIT_NAMES.get(path.stem.lower())
        if split is None or path.suffix.lower() not in formats:
            continue
        if split in found:
            raise BadData(
                f"{folder} has two files for the {split} split: {found[split].name} and "
                f"{path.name}.",
                hint="Keep one of them.",
            )
        found[split] = path
    if "train" not in found:
        raise BadData(
            f"{folder} has no training data.",
            hint=f"Name the file train with one of the extensions {', '.join(formats)}, or give "
            "the file itself in place of its folder.",
        )
    return found
