"""SHA-256 of files and streams."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from coldfusion_shared.schemas.files import FileEntry

BLOCK_BYTES = 2**20


def file_sha256(path: Path, progress: Callable[[int], None] = lambda _: None) -> str:
    """
    Return the SHA-256 of the file at `path`, in hexadecimal.

    Args:
        path: the file.
        progress: called with the number of bytes of each block that was read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            progress(len(block))
    return digest.hexdigest()


def file_entry(path: Path, name: str) -> FileEntry:
    """Describe the file at `path`, which is called `name` in its model folder."""
    return FileEntry(path=name, size=path.stat().st_size, sha256=file_sha256(path))
