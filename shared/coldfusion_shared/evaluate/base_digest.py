"""Which base it is that is measured, by its files."""

from __future__ import annotations

import fnmatch
import hashlib
from pathlib import Path

from coldfusion_shared.errors import BadModel
from coldfusion_shared.tasks.pretrained import TOKENIZER_FILES
from coldfusion_shared.weights.digests import file_sha256
from coldfusion_shared.weights.layout import CONFIG_FILE, weight_files

# What a text is to a model depends on its config, and on all that its tokenizer reads.
SIDE_FILES = (
    *(CONFIG_FILE, "generation_config.json"),
    *(*TOKENIZER_FILES, "special_tokens_map.json", "added_tokens.json"),
)
# Name, bytes, time of the last change, and which file it is.
Stamp = tuple[str, int, int, int]


def base_digest(folder: Path) -> str:
    """
    Return the SHA-256 (hex) of all that a model's scores depend on: weights, config, tokenizer.

    Raises:
        BadModel: there is no model in the folder, or it has gone meanwhile.
    """
    try:
        digests = [f"{file_sha256(folder / name)} {name}\n" for name in _names(folder)]
    except OSError as error:
        raise _unreadable(folder, error) from error
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def stamps(folder: Path) -> tuple[Stamp, ...]:
    """Return what changes when one of those files does; quick, raises as `base_digest` does."""
    try:
        found = [(name, (folder / name).stat()) for name in _names(folder)]
    except OSError as error:
        raise _unreadable(folder, error) from error
    return tuple((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in found)


def _names(folder: Path) -> list[str]:
    return sorted({*weight_files(folder), *_side_files(folder)})


def _unreadable(folder: Path, error: OSError) -> BadModel:
    return BadModel(
        f"The base in {folder} cannot be read: {error.strerror}.",
        hint="Pull it again, then run the command again.",
    )


def _side_files(folder: Path) -> list[str]:
    return [
        file.name
        for file in folder.iterdir()
        if file.is_file() and any(fnmatch.fnmatch(file.name, one) for one in SIDE_FILES)
    ]
