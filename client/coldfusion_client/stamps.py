"""
Stamps of verified files: what a file looked like when its digest was known to be right.

To wait until a disk has written a large file takes longer than to download it, so nobody waits.
Instead a stamp carries the start of the machine during which the file was written: after a power
cut, which may leave holes in a file of the right size, it is another one, and the stamp no longer
fits. Where the system does not tell its start, the disk is waited for after all.
"""

from __future__ import annotations

import os
from pathlib import Path

from coldfusion_client.disk import write_atomically

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def fits(path: Path) -> bool:
    """Return whether the file at `path` is surely the one that was verified."""
    seen = _look(path)
    return _written(path) in {seen, f"{seen} {_boot()}"}


def stamp(path: Path) -> None:
    """Keep what the file at `path`, just verified, looks like."""
    seen, boot = _look(path), _boot()
    # Verified after a restart, it was read from the disk: from now on it fits for good.
    if boot is not None and not (_written(path) or "").startswith(f"{seen} "):
        seen = f"{seen} {boot}"
    elif boot is None:
        _await_disk(path)
    write_atomically(_beside(path), seen.encode())


def _look(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _written(path: Path) -> str | None:
    try:
        return _beside(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.stamp")


def _boot() -> str | None:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return None


def _await_disk(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())
