"""One process at a time, by locks that the system itself takes back when a process dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from coldfusion_shared.errors import InvalidRequest


@contextmanager
def alone(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """
    Hold the lock file `path`, which is gone in the end.

    Args:
        path: it need not be there.
        waiting: called where somebody else has it, before waiting for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            if not _taken(lock):
                waiting()
                fcntl.flock(lock, fcntl.LOCK_EX)
            # Who had it before has removed it: by now another process may have a new one.
            if _is_at(lock, path):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return
        finally:
            os.close(lock)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder; raises `InvalidRequest` where another process does."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        if not _taken(lock):
            raise InvalidRequest(
                f"Another process is at work in {folder}.",
                hint="Wait until it has ended, or choose another folder.",
            )
        yield
    finally:
        os.close(lock)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(lock: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False
