"""Objects as files in a folder: synced to the disk, then renamed into place."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from coldfusion_server.storage import (
    ListedObject,
    ObjectWriter,
    PartWriter,
    StoredObject,
    StoredPart,
    check_digest,
)
from coldfusion_shared.errors import (
    DigestMismatch,
    StorageFull,
    StorageUnavailable,
    UploadIncomplete,
)
from coldfusion_shared.weights.checkpoint import ByteSource, FileSource
from coldfusion_shared.weights.digests import BLOCK_BYTES

# Longer than any single object takes to write; what is older belongs to a process that died.
ABANDONED_SECONDS = 24 * 3600
SYNC_BYTES = 2**28


class LocalStore:
    """An `ObjectStore` in the folder `root`, which all processes of the server share."""

    min_part_bytes = 1

    def __init__(self, root: Path) -> None:
        """Make the folders that are not there yet."""
        self.root = root
        self.folder = root / "objects" / "sha256"
        self.uploads = root / "uploads"
        self.temporary = root / "tmp"
        with named_errors(root):
            for folder in (self.folder, self.uploads, self.temporary):
                folder.mkdir(parents=True, exist_ok=True)

    def put(self, chunks: Iterable[bytes | memoryview], expect: str | None = None) -> StoredObject:
        """Store the bytes of `chunks` under their own digest."""
        writer = self.open_object()
        try:
            for chunk in chunks:
                writer.write(chunk)
            return writer.commit(expect)
        finally:
            writer.abort()

    def open_object(self) -> ObjectWriter:
        """Begin an object in a temporary file."""
        return _LocalObject(self._partial(), self.folder)

    def exists(self, digest: str) -> bool:
        """Return whether the object is there."""
        return self._path(digest).is_file()

    def size(self, digest: str) -> int:
        """Return the object's size in bytes."""
        with named_errors(self.root):
            return self._path(digest).stat().st_size

    def stored_at(self, digest: str) -> datetime | None:
        """Return when the object's file was written."""
        with named_errors(self.root), suppress(FileNotFoundError):
            return _written_at(self._path(digest).stat())
        return None

    def source(self, digest: str) -> ByteSource:
        """Map the object's file."""
        with named_errors(self.root):
            return FileSource(self._path(digest))

    def local_path(self, digest: str) -> Path | None:
        """Return the object's file."""
        return self._path(digest)

    def object_url(self, digest: str, lifetime: timedelta, name: str) -> str | None:
        """No URL: the server sends the file itself."""
        return None

    def objects(self) -> Iterator[ListedObject]:
        """Walk through the folders."""
        with named_errors(self.root):
            for path in self.folder.glob("*/*"):
                # Another process may have removed it since the folder was read.
                with suppress(FileNotFoundError):
                    status = path.stat()
                    yield ListedObject(path.name, status.st_size, _written_at(status))

    def delete(self, digest: str) -> None:
        """Remove the object's file."""
        with named_errors(self.root):
            self._path(digest).unlink(missing_ok=True)

    def part_urls(
        self, upload: str, sizes: Mapping[int, int], lifetime: timedelta
    ) -> dict[int, str] | None:
        """No URLs: the server signs its own."""
        return None

    def open_part(self, upload: str, number: int) -> PartWriter:
        """Begin a part in a file of its own."""
        return _LocalPart(self._partial(), self.uploads / upload, number)

    def parts(self, upload: str) -> dict[int, StoredPart]:
        """Read numbers and ETags off the file names."""
        found = {}
        for number, path in self._part_files(upload):
            with named_errors(self.root), suppress(FileNotFoundError):
                found[number] = StoredPart(path.stat().st_size, path.suffix[1:])
        return found

    def adopt(
        self, upload: str, expect: str, progress: Callable[[int], None] = lambda size: None
    ) -> StoredObject:
        """Copy the parts into one file, hashing them on the way."""
        if not self._part_files(upload):
            raise UploadIncomplete(f"There is nothing of the upload {upload} under {self.root}.")
        return self.put(self._read_parts(upload, progress), expect)

    def pending_uploads(self) -> list[str]:
        """Return the names of the uploads' folders."""
        with named_errors(self.root):
            return [path.name for path in self.uploads.iterdir()]

    def discard_upload(self, upload: str) -> None:
        """Remove the upload's folder."""
        shutil.rmtree(self.uploads / upload, ignore_errors=True)

    def claim(self, owner: str) -> str:
        """Write a file that only the first one makes."""
        file, new = self.root / "owner", self._partial()
        with named_errors(self.root):
            if not file.exists():
                new.write_text(owner, encoding="utf-8")
                # A link and not a rename: it fails where another process was first.
                with suppress(FileExistsError):
                    file.hardlink_to(new)
                new.unlink()
            return file.read_text(encoding="utf-8")

    def clean(self) -> None:
        """Remove temporary files that nobody can be writing any more."""
        with named_errors(self.root):
            for path in self.temporary.iterdir():
                # Its writer may just have finished, or another process cleans, too.
                with suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                        path.unlink()

    def free_bytes(self) -> int | None:
        """Return the free bytes of the disk."""
        with named_errors(self.root):
            return shutil.disk_usage(self.root).free

    def check(self) -> None:
        """Write, read and remove a small object."""
        stored = self.put([secrets.token_bytes(64)])
        if self.size(stored.sha256) != stored.size:
            raise StorageUnavailable(f"An object in {self.root} came back with another size.")
        self.delete(stored.sha256)

    def close(self) -> None:
        """Nothing is held."""

    def _read_parts(self, upload: str, progress: Callable[[int], None]) -> Iterator[bytes]:
        with named_errors(self.root):
            for _, path in self._part_files(upload):
                with path.open("rb") as file:
                    while block := file.read(BLOCK_BYTES):
                        yield block
                        progress(len(block))

    def _path(self, digest: str) -> Path:
        return object_path(self.folder, digest)

    def _partial(self) -> Path:
        return self.temporary / secrets.token_hex(16)

    def _part_files(self, upload: str) -> list[tuple[int, Path]]:
        """Return each part's number and file; of two files of one number the newer one."""
        folder, newest = self.uploads / upload, dict[int, tuple[int, Path]]()
        with named_errors(self.root), suppress(FileNotFoundError):
            for path in folder.iterdir():
                # A writer that dies between its rename and its clearing up leaves the older one.
                with suppress(FileNotFoundError):
                    entry = (path.stat().st_mtime_ns, path)
                    newest[int(path.stem)] = max(entry, newest.get(int(path.stem), entry))
        return [(number, path) for number, (_, path) in sorted(newest.items())]


class _LocalObject:
    """An object that is written to a temporary file and renamed to its digest."""

    def __init__(self, partial: Path, objects: Path) -> None:
        self.partial = partial
        self.folder = objects
        self.digest = hashlib.sha256()
        self.size = self.unsynced = 0
        with named_errors(objects):
            self.file = partial.open("wb")

    def write(self, data: bytes | memoryview) -> None:
        """Append to the temporary file."""
        self.digest.update(data)
        self.size += len(data)
        self.unsynced += len(data)
        with named_errors(self.folder):
            self.file.write(data)
            if self.unsynced >= SYNC_BYTES:
                # Bit by bit, so that the last sync, during which nothing else happens, is short.
                _sync(self.file)
                self.unsynced = 0

    def finish(self) -> None:
        """Nothing to do: the file's buffer is small."""

    def commit(
        self, expect: str | None = None, progress: Callable[[int], None] = lambda size: None
    ) -> StoredObject:
        """Sync and rename."""
        sha256 = self.digest.hexdigest()
        check_digest(sha256, expect)
        with named_errors(self.folder):
            _sync(self.file)
            progress(0)
            self.file.close()
            _rename(self.partial, object_path(self.folder, sha256))
        return StoredObject(sha256, self.size)

    def abort(self) -> None:
        """Remove the temporary file."""
        _abandon(self.file, self.partial)


class _LocalPart:
    """A part that is written to a temporary file and renamed to ``<number>.<md5>``."""

    def __init__(self, partial: Path, folder: Path, number: int) -> None:
        self.partial = partial
        self.folder = folder
        self.number = number
        # A checksum of the transfer, as S3's ETag is; what is trusted is the SHA-256 of the whole.
        self.digest = hashlib.md5(usedforsecurity=False)
        with named_errors(folder):
            self.file = partial.open("wb")

    def write(self, data: bytes) -> None:
        """Append to the temporary file."""
        self.digest.update(data)
        with named_errors(self.folder):
            self.file.write(data)

    def commit(self, md5: str | None = None) -> str:
        """Sync, rename, and remove an earlier part of this number."""
        etag = self.digest.hexdigest()
        if md5 not in (None, etag):
            raise DigestMismatch(
                "The part did not arrive as it was sent.", hint="Send the part again."
            )
        with named_errors(self.folder):
            _sync(self.file)
            self.file.close()
            target = self.folder / f"{self.number}.{etag}"
            # The time that a file has by itself is of a coarse clock, by which two may be alike.
            now = time.time_ns()
            os.utime(self.partial, ns=(now, now))
            _rename(self.partial, target)
            # Of several that send one part at once the newest stays: each removes only older ones.
            with suppress(FileNotFoundError):
                mine = (target.stat().st_mtime_ns, target)
                for other in self.folder.glob(f"{self.number}.*"):
                    if (other.stat().st_mtime_ns, other) < mine:
                        other.unlink()
        return etag

    def abort(self) -> None:
        """Remove the temporary file."""
        _abandon(self.file, self.partial)


def object_path(objects: Path, digest: str) -> Path:
    """Return the file of the object with that digest."""
    return objects / digest[:2] / digest


def _written_at(status: os.stat_result) -> datetime:
    return datetime.fromtimestamp(status.st_mtime, UTC)


def _abandon(file: BinaryIO, partial: Path) -> None:
    # Closing writes what is left, which a full disk refuses once more.
    with suppress(OSError):
        file.close()
    partial.unlink(missing_ok=True)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _rename(source: Path, target: Path) -> None:
    """Rename durably: the entries of the file and of a new folder are synced, too."""
    new = not target.parent.exists()
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
    for path in [target.parent, target.parent.parent] if new else [target.parent]:
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def named_errors(root: Path) -> Iterator[None]:
    """Turn the operating system's errors into ours."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"The disk under {root} is full.",
                hint="The operator has to free space; nothing that was accepted is lost.",
            ) from error
        raise StorageUnavailable(f"The store under {root} fails: {error}.") from error
