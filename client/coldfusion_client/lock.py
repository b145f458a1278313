"""One process at a time: locks that the system itself takes back when a process dies."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_POLL_SECONDS = 0.2

if sys.platform == "win32":
    import msvcrt

    def _take(file: IO[bytes]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _take(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """
    Hold the lock file at `path`. The file stays: to delete it would let two hold "the" lock.

    Args:
        path: the lock file.
        wait: whether to wait for another holder.

    Raises:
        BlockingIOError: another process holds it, and `wait` is false.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        while not _taken(file):
            if not wait:
                raise BlockingIOError(f"{path} is held by another process")
            time.sleep(_POLL_SECONDS)
        yield


def _taken(file: IO[bytes]) -> bool:
    try:
        _take(file)
    except (BlockingIOError, PermissionError):  # Windows says the second
        return False
    return True
