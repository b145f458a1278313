"""Files of a base out of the store into a folder, each verified on its way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from coldfusion_server.services.context import Context
from coldfusion_shared.errors import DigestMismatch
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.weights.digests import BLOCK_BYTES


def check_out(
    ctx: Context, files: Iterable[FileEntry], folder: Path, progress: Callable[[], None]
) -> None:
    """
    Write `files` into `folder`.

    Args:
        ctx: the service's surroundings.
        files: those of a base.
        folder: an empty one, or none yet.
        progress: called after each block.

    Raises:
        DigestMismatch: the store has other bytes than the manifest says.
        StorageUnavailable: the store does not have them now.
    """
    for file in files:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if _copy(ctx, file.sha256, target, progress) != file.sha256:
            raise DigestMismatch(
                f"The store's object of {file.path} is damaged: its SHA-256 is not its name.",
                hint="Bring the object back from a backup of the store.",
            )


def _copy(ctx: Context, sha256: str, target: Path, progress: Callable[[], None]) -> str:
    """Write an object into the file `target`; return the SHA-256 of what was written."""
    digest, block = hashlib.sha256(), memoryview(bytearray(BLOCK_BYTES))
    source = ctx.store.source(sha256)
    try:
        with target.open("wb") as file:
            for start in range(0, source.size, BLOCK_BYTES):
                part = block[: min(BLOCK_BYTES, source.size - start)]
                source.read_into(start, part)
                digest.update(part)
                file.write(part)
                progress()
    finally:
        source.close()
    return digest.hexdigest()
