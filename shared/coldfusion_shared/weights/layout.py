"""Which files of a model folder hold its weights: one safetensors file, or shards and an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coldfusion_shared.errors import BadModel
from coldfusion_shared.schemas.common import check_file_path

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


def weight_files(folder: Path) -> list[str]:
    """
    Return the names of the safetensors files of the model in `folder`, in their own order.

    Raises:
        BadModel: there are none, or the index names one that is missing.
    """
    if (folder / SINGLE_FILE).is_file():
        return [SINGLE_FILE]
    if (folder / INDEX_FILE).is_file():
        return _shards(folder)
    if not folder.is_dir():
        raise BadModel(f"There is no folder {str(folder)!r}.")
    raise BadModel(
        f"The folder {str(folder)!r} has no {SINGLE_FILE}.",
        hint="Save the model with model.save_pretrained(folder); pickle files are never read.",
    )


def _shards(folder: Path) -> list[str]:
    try:
        index: Any = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
        names = [check_file_path(name) for name in sorted(set(index["weight_map"].values()))]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadModel(f"{INDEX_FILE} is not the index of a sharded model.") from None
    if not all(name.endswith(".safetensors") for name in names):
        raise BadModel(
            f"{INDEX_FILE} names files that are not safetensors.",
            hint="Save the model with model.save_pretrained(folder); pickle files are never read.",
        )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not names:
        raise BadModel(f"{INDEX_FILE} names files that are missing: {', '.join(missing[:5])}.")
    return names
