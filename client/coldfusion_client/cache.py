"""
Downloaded files by their content: ``objects/sha256/<aa>/<digest>``, shared by all models.

An object may be hard-linked into a folder where a person works (see `place.py`). So it carries a
stamp of its size and time of change (see `stamps.py`); where that no longer fits, the object is
hashed again before it is used, and dropped if it is not what its name says.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from coldfusion_client import stamps
from coldfusion_client.disk import writing
from coldfusion_client.lock import locked
from coldfusion_client.transfer.partial import held
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.weights.digests import file_sha256

_POLL_SECONDS = 0.2


def default_cache() -> Cache:
    """Return the cache at ``COLDFUSION_CACHE`` or in the platform's folder for caches."""
    folder = os.environ.get("COLDFUSION_CACHE")
    return Cache(Path(folder) if folder else user_cache_path("coldfusion"))


class Cache:
    """A folder of objects by digest. Any number of processes may use it at once."""

    def __init__(self, root: Path) -> None:
        """Use the folder `root`, which is created when something is written."""
        self.root = root.absolute()

    def object(self, digest: str) -> Path:
        """Return where the object of that digest lies, if it does."""
        return self.root / "objects" / "sha256" / digest[:2] / digest

    def partial(self, digest: str) -> Path:
        """Return where a download of that digest grows."""
        return self.root / "partial" / digest

    def begun(self, entry: FileEntry) -> int:
        """Return how many bytes of `entry` an unfinished download has brought."""
        ranges = held(self.partial(entry.sha256), entry.size)
        return sum(end - start for start, end in ranges)

    @contextmanager
    def lock(self, digest: str, sleep: Callable[[float], Any] = time.sleep) -> Iterator[None]:
        """Hold the right to download that digest; `sleep` while another process does it already."""
        with ExitStack() as held:
            while True:
                try:
                    held.enter_context(locked(self.root / "locks" / digest, wait=False))
                    break
                except BlockingIOError:
                    sleep(_POLL_SECONDS)
            yield

    def find(self, entry: FileEntry) -> Path | None:
        """Return the object of `entry`, surely unchanged, or null."""
        path = self.object(entry.sha256)
        if not path.is_file():
            return None
        if stamps.fits(path):
            return path
        if file_sha256(path) == entry.sha256:
            stamps.stamp(path)
            return path
        path.unlink(missing_ok=True)
        return None

    def adopt(self, digest: str, file: Path) -> Path:
        """Move `file`, whose digest was verified, among the objects, and return its new path."""
        path = self.object(digest)
        with writing(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            file.replace(path)
            stamps.stamp(path)
        return path

    def folder(self, manifest: Manifest) -> Path:
        """
        Return a model folder with the files of `manifest`, all of which are in the cache.

        It is for reading by ourselves alone; its files are links to the objects.
        """
        folder = self.root / "bases" / manifest.digest()
        if not all((folder / entry.path).exists() for entry in manifest.files):
            self._build(folder, manifest)
        return folder

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a new folder for files that are needed inside the block."""
        parent = self.root / "scratch"
        self._sweep(parent)
        lock = parent / f"{secrets.token_hex(8)}.lock"
        folder = lock.with_suffix("")
        # The lock first: a folder without one would be taken for what a killed process left.
        with locked(lock, wait=True):
            try:
                with writing(self.root):
                    folder.mkdir()
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)

    def _sweep(self, parent: Path) -> None:
        """Remove what killed processes left: a model's size each time, if nobody did."""
        for lock in parent.glob("*.lock"):
            with suppress(BlockingIOError, FileNotFoundError), locked(lock, wait=False):
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)

    def _build(self, folder: Path, manifest: Manifest) -> None:
        with self.scratch() as new, writing(self.root):
            for entry in manifest.files:
                target = new / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                _refer(target, self.object(entry.sha256))
            folder.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            # Where another process was faster, what it built is the same.
            with suppress(OSError):
                new.rename(folder)


def _refer(target: Path, source: Path) -> None:
    try:
        # Symbolic, so that the number of hard links still tells whether a person's folder has one.
        target.symlink_to(source)
    except OSError:
        shutil.copyfile(source, target)  # Windows lets not everybody make links
