"""A base's files into the cache: several at once, resumed where they stopped, and verified."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace

import httpx

from coldfusion_client.api import Api
from coldfusion_client.cache import Cache
from coldfusion_client.disk import writing
from coldfusion_client.reporting import Bar
from coldfusion_client.transfer.changes import bring_changes, offered
from coldfusion_client.transfer.crew import Crew
from coldfusion_client.transfer.partial import PartialFile
from coldfusion_client.transfer.receiving import Job, receive
from coldfusion_shared.errors import DigestMismatch
from coldfusion_shared.schemas.bases import Difference, Manifest
from coldfusion_shared.schemas.files import FileEntry

WORKERS = 4


def fetch(
    api: Api,
    cache: Cache,
    base: Manifest,
    entries: Iterable[FileEntry],
    bar: Bar,
    workers: int = WORKERS,
    candidate: str | None = None,
) -> None:
    """
    Bring a base's files into `cache`; those that are there already are not downloaded.

    Where the cache has what the base was made from, a difference is brought if there is one.

    Args:
        api: where to get them.
        cache: where to keep them.
        base: the base.
        entries: which of its files.
        bar: moves by the files' sizes in all.
        workers: how many requests are under way at once, over all files; each holds one block in
            memory.
        candidate: the id of the candidate that `base` is, as long as it is none.

    Raises:
        DigestMismatch: the server's bytes are not the ones of the manifest, also the second time.
        StorageFull: no room on the disk.
        ServerUnreachable: the connection was lost too often.
    """
    wanted = list(entries)
    # Nobody has a difference from what is no base yet.
    changes = {} if candidate else offered(api, cache, base, wanted)
    with Crew(workers) as requests, Crew(workers) as files:

        def opened(
            entry: FileEntry, start: int, end: int | None
        ) -> AbstractContextManager[httpx.Response]:
            if candidate is not None:
                return api.open_candidate_file(base.model, candidate, entry.path, start, end)
            return api.open_file(base.model, base.version, entry.path, start, end)

        def difference(
            entry: FileEntry, start: int, end: int | None
        ) -> AbstractContextManager[httpx.Response]:
            return api.open_difference(base.model, base.version, entry.sha256, start, end)

        job = Job(api, base, opened, bar, requests, files)
        by_changes = replace(job, open=difference)
        files.finish(
            [
                files.submit(_bring, job, cache, entry, by_changes, changes.get(entry.sha256))
                for entry in wanted
            ]
        )


def _bring(
    job: Job, cache: Cache, entry: FileEntry, by_changes: Job, changes: Difference | None
) -> None:
    over = job.files.flag()
    over.check()
    # Two processes that need the same file: the second one finds it when its turn comes.
    with cache.lock(entry.sha256, over.sleep), writing(cache.root):
        if cache.find(entry) is not None:
            job.bar.advance(entry.size)
            return
        if changes is not None and bring_changes(by_changes, cache, entry, changes):
            return
        partial = PartialFile(cache.partial(entry.sha256), entry.size)
        try:
            receive(job, entry, partial)
        except DigestMismatch:
            # An earlier run may have left a damaged half; a clean start decides.
            receive(job, entry, partial)
        cache.adopt(entry.sha256, partial.path)
        partial.discard()
