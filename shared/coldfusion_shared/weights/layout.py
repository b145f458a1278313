"""Which files of a model folder hold its weights, and which belong to them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coldfusion_shared.errors import BadModel
from coldfusion_shared.schemas.common import check_file_path

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"

# What a base may carry beside its weights: data that describe it, never code, never pickles.
SIDE_FILES = (
    CONFIG_FILE,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "spm.model",
    "chat_template.jinja",
    "LICENSE",
)


def is_weights(path: str) -> bool:
    """Return whether a file of that name holds tensors."""
    return path.endswith(".safetensors")


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
    if not names:
        raise BadModel(f"{INDEX_FILE} names no files.")
    if missing:
        raise BadModel(f"{INDEX_FILE} names files that are missing: {', '.join(missing[:5])}.")
    return names


def write_index(folder: Path, files: Mapping[str, Sequence[str]], total_size: int) -> None:
    """
    Write the index of a sharded model.

    Args:
        folder: where it goes.
        files: names of the tensors by file.
        total_size: bytes of all tensors.
    """
    weight_map = {tensor: file for file, tensors in files.items() for tensor in tensors}
    index = {
        "metadata": {"total_size": total_size},
        "weight_map": dict(sorted(weight_map.items())),
    }
    text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
    (folder / INDEX_FILE).write_text(text, encoding="utf-8")
