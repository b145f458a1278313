"""Files that appear whole or not at all, and what a full disk is called."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coldfusion_shared.errors import StorageFull

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn the system's "no space left" while writing under `folder` into `StorageFull`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageFull(
            f"The disk is full; nothing more can be written under {folder}.",
            hint="Free some space and give the same command again; it goes on where it stopped.",
        ) from None


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """
    Write `content` to the file at `path`, of which a reader sees the old or the new, no mixture.

    Raises:
        StorageFull: no room; what was there before is still there.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # The mode from the first byte on, so that a secret is never readable for a moment.
            descriptor = os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
