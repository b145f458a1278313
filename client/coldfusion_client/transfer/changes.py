"""Files by their differences from files that are in the cache: fewer bytes, the very same file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import closing

from coldfusion_client.api import Api
from coldfusion_client.cache import Cache
from coldfusion_client.transfer.partial import PartialFile
from coldfusion_client.transfer.receiving import Job, receive
from coldfusion_shared.errors import BadWeights, NotFound
from coldfusion_shared.schemas.bases import DIFFERENCE_BYTES, Difference, Manifest
from coldfusion_shared.schemas.files import FileEntry


def offered(
    api: Api, cache: Cache, base: Manifest, entries: Iterable[FileEntry]
) -> dict[str, Difference]:
    """Return differences by which some of `entries` can be had, by the digest of the new file."""
    wanted = {
        entry.sha256
        for entry in entries
        if entry.size >= DIFFERENCE_BYTES and not cache.begun(entry) and cache.find(entry) is None
    }
    if base.parent is None or not wanted:
        return {}
    try:
        found = api.differences(base.model, base.version)
    except NotFound:
        return {}  # A server of an older version.
    return {
        one.new_sha256: one
        for one in found
        if one.new_sha256 in wanted and _in_cache(cache, one.old_sha256)
    }


def bring_changes(job: Job, cache: Cache, entry: FileEntry, difference: Difference) -> bool:
    """
    Make the file `entry` of the one that is in the cache; return whether that was possible.

    The result is hashed: it is the file of the manifest, or none.
    """
    changes = FileEntry(path=entry.path, size=difference.size, sha256=difference.sha256)
    partial = PartialFile(cache.partial(difference.sha256), difference.size)
    try:
        receive(job, changes, partial)
        _apply(cache, entry, difference, partial)
    except (BadWeights, NotFound):
        job.bar.advance(-difference.size)
        return False
    finally:
        partial.discard()
    job.bar.advance(entry.size - difference.size)
    return True


def _apply(cache: Cache, entry: FileEntry, difference: Difference, changes: PartialFile) -> None:
    # Here and not above: numpy takes a while to load.
    from coldfusion_shared.fusion.executor import threads
    from coldfusion_shared.weights.checkpoint import FileSource
    from coldfusion_shared.weights.differences.apply import apply_difference
    from coldfusion_shared.weights.differences.container import Pair

    with cache.scratch() as folder, closing(FileSource(cache.object(difference.old_sha256))) as old:
        pair = Pair(old.size, difference.old_sha256, entry.size, entry.sha256)
        made = folder / "made"
        with made.open("wb") as out, changes.path.open("rb") as given:
            apply_difference(old, given, pair, out.write, threads(os.cpu_count() or 1))
        cache.adopt(entry.sha256, made)


def _in_cache(cache: Cache, digest: str) -> bool:
    path = cache.object(digest)
    if not path.is_file():
        return False
    return (
        cache.find(FileEntry(path=path.name, size=path.stat().st_size, sha256=digest)) is not None
    )
