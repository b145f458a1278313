"""
A folder that appears whole or not at all: made under a temporary name, locked, then renamed.

The lock tells a process that is alive from one that was killed, whose remains are removed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coldfusion_shared.errors import ColdFusionError, InvalidRequest, StorageFull


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """
    Yield a temporary folder that becomes `out` at the end, or vanishes if anything goes wrong.

    Raises:
        StorageFull: no room on the disk.
    """
    with partial_folder(out) as partial:
        mode = _usual_mode(partial)
        yield partial
        partial.chmod(mode)
        partial.replace(out)


@contextmanager
def partial_folder(out: Path) -> Iterator[Path]:
    """
    Yield a temporary folder beside `out` that vanishes in the end, unless it was renamed.

    What a killed process has left of an earlier one is removed first.

    Raises:
        StorageFull: no room on the disk.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(out)
        partial, lock = _locked_folder(out)
    except OSError as error:
        raise _disk_error(error, out) from None
    try:
        yield partial
    except OSError as error:
        raise _disk_error(error, out) from None
    finally:
        os.close(lock)
        shutil.rmtree(partial, ignore_errors=True)


def _prefix(out: Path) -> str:
    return f".{out.name}.partial-"


def _locked_folder(out: Path) -> tuple[Path, int]:
    """Make a folder and lock it; again, if another process took it for an abandoned one."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(out), dir=out.parent))
        lock = _lock(folder)
        if lock is not None and folder.is_dir():
            return folder, lock
        if lock is not None:
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """Lock the folder until the number is closed; null if it is locked, or gone."""
    try:
        lock = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _remove_abandoned(out: Path) -> None:
    """Remove what a process that was killed has left; one that is alive holds a lock."""
    for folder in out.parent.iterdir():
        if not folder.name.startswith(_prefix(out)):
            continue
        lock = _lock(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _usual_mode(folder: Path) -> int:
    """Return what the umask leaves of a mode; to ask for it would change it for a moment."""
    made = folder / ".mode"
    made.mkdir()
    mode = made.stat().st_mode & 0o777
    made.rmdir()
    return mode


def _disk_error(error: OSError, out: Path) -> ColdFusionError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(
            f"The disk is full; {out.name} could not be written, and nothing is left of it.",
            hint=f"Free some space under {out.absolute().parent}, then run the command again.",
        )
    return InvalidRequest(f"{str(out)!r} cannot be written: {error.strerror or error}.")
