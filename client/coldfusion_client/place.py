"""One file's content at a second path, for as little disk space as is safe."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

# A configuration or a tokenizer: people edit it, and it costs nothing to copy.
SMALL_BYTES = 2**20
# linux/fs.h: _IOW(0x94, 9, int), the ioctl behind `cp --reflink`.
_FICLONE = 0x40049409


def place(source: Path, target: Path) -> None:
    """
    Give `target`, which does not exist, the content of the cached file `source`.

    A clone shares the disk space and nothing else. A hard link is the same file, and training code
    that saves over it writes into the cache: the cache notices that by itself (see `cache.py`), but
    a second folder linked to the file would be changed silently. So the first folder gets the link
    and any other one a copy. Read-only files would stop such code, and honest code with it.
    """
    if source.stat().st_size > SMALL_BYTES and (_clone(source, target) or _link(source, target)):
        return
    shutil.copyfile(source, target)


def _clone(source: Path, target: Path) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        with source.open("rb") as old, target.open("xb") as new:
            fcntl.ioctl(new, _FICLONE, old.fileno())
    except OSError:
        target.unlink(missing_ok=True)
        return False
    return True


def _link(source: Path, target: Path) -> bool:
    if source.stat().st_nlink > 1:
        return False
    try:
        os.link(source, target)
    except OSError:
        return False  # another disk, or one that knows no links
    return True
