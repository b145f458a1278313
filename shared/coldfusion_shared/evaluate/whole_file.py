"""A file that appears whole or not at all."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

# What was not written to for so long belongs to no process any more.
LEFT_SECONDS = 3600.0


def remove_left(folder: Path, name: str = "*") -> None:
    """Remove what killed processes have left in `folder` of files called `name`, a pattern."""
    for file in folder.glob(f".{name}.*.partial"):
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > LEFT_SECONDS:
                file.unlink()


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of `path` once the block is through; raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    partial = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            yield file
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
