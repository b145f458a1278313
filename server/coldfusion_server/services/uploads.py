"""Upload plans: which parts a contribution has, which have arrived, where the others go."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import BoundedSemaphore

from coldfusion_server.db.tables import ContributionFileRow, ContributionRow, HubUploadRow
from coldfusion_server.services.context import Context
from coldfusion_server.services.parts import part_url
from coldfusion_server.storage import StoredPart
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import StorageUnavailable
from coldfusion_shared.schemas.contributions import Contribution, FileUpload, Part, UploadPlan

# What is sent in parts.
InParts = ContributionFileRow | HubUploadRow
# Each has a signed URL in the plan, which has to stay small; S3 itself takes ten times as many.
MAX_PARTS = 1_000
# Uploads of one page of a list that are asked about at a time.
LOOKS = 16
# Of all requests together: the others do without the number.
_LOOKING = BoundedSemaphore(LOOKS)


def part_bytes_for(ctx: Context, size: int) -> int:
    """Return the size of the parts of a file of `size` bytes, in bytes."""
    least = max(ctx.settings.part_bytes, ctx.store.min_part_bytes)
    return max(least, math.ceil(size / MAX_PARTS))


def upload_key(contribution: str, index: int) -> str:
    """Return the store's key of the contribution's file number `index`."""
    return f"{contribution}.{index}"


def upload_keys(row: ContributionRow) -> list[str]:
    """Return the store's keys of the contribution's uploads."""
    return [key_of(row, index) for index, file in enumerate(row.files) if is_sent(file)]


def key_of(row: ContributionRow, index: int) -> str:
    """Return the store's key of the upload of the contribution's file number `index`."""
    return row.files[index].upload or upload_key(row.id, index)


def is_sent(file: ContributionFileRow) -> bool:
    """Return whether the file has an upload: it was no object before, nor one of the base's."""
    return not file.here and not file.stored


def plan(ctx: Context, row: ContributionRow, base_url: str) -> UploadPlan:
    """
    Return where the missing parts of the contribution go; URLs are made anew each time.

    It asks the store, so it is no part of a transaction; `row` has its files loaded.
    """
    expires_at = ctx.now() + timedelta(minutes=ctx.settings.url_minutes)
    files = [
        _file_upload(ctx, row, index, file, base_url, expires_at)
        for index, file in enumerate(row.files)
    ]
    return UploadPlan(contribution=row.id, expires_at=expires_at, files=files)


def part_count(file: InParts) -> int:
    """Return how many parts the file has."""
    return max(1, math.ceil(file.size / file.part_bytes))


def part_size(file: InParts, number: int) -> int:
    """Return the size of part `number`, counted from 1, in bytes."""
    return min(file.part_bytes, file.size - (number - 1) * file.part_bytes)


def missing_parts(ctx: Context, row: ContributionRow) -> list[str]:
    """Return what has not arrived yet, in words; asks the store."""
    missing = []
    for index, file in enumerate(row.files):
        arrived = ctx.store.parts(key_of(row, index)) if is_sent(file) else {}
        lacking = lacking_parts(file, arrived) if is_sent(file) else []
        if lacking:
            missing.append(f"{len(lacking)} of {part_count(file)} parts of {file.path}")
    return missing


def with_progress(ctx: Context, shown: Sequence[Contribution]) -> list[Contribution]:
    """Return the contributions with the bytes that have arrived of those on their way."""
    waiting = [item for item in shown if item.state == ContributionState.DECLARED]
    if not waiting:
        return list(shown)
    with ThreadPoolExecutor(min(LOOKS, len(waiting))) as pool:
        counts = pool.map(lambda item: _arrived_bytes(ctx, item), waiting)
        arrived = {item.id: count for item, count in zip(waiting, counts, strict=True)}
    return [
        item.model_copy(update={"uploaded_bytes": item.uploaded_bytes + arrived.get(item.id, 0)})
        for item in shown
    ]


def _arrived_bytes(ctx: Context, shown: Contribution) -> int:
    """
    Return how many bytes have arrived; a file that is here already has no upload.

    The number is for people to look at: a store that is slow or away must not hold up a page.
    """
    keys = [upload_key(shown.id, index) for index in range(len(shown.files))]
    if not _LOOKING.acquire(blocking=False):
        return 0
    try:
        return sum(part.size for key in keys for part in ctx.store.parts(key).values())
    except StorageUnavailable:
        return 0
    finally:
        _LOOKING.release()


def lacking_parts(file: InParts, arrived: Mapping[int, StoredPart]) -> list[int]:
    """Return the numbers of the parts that have not arrived, or not with their size."""
    return [
        number
        for number in range(1, part_count(file) + 1)
        if number not in arrived or arrived[number].size != part_size(file, number)
    ]


def _file_upload(
    ctx: Context,
    row: ContributionRow,
    index: int,
    file: ContributionFileRow,
    base_url: str,
    expires_at: datetime,
) -> FileUpload:
    key = key_of(row, index)
    waiting = row.state == ContributionState.DECLARED and is_sent(file)
    arrived = ctx.store.parts(key) if waiting else {}
    missing = lacking_parts(file, arrived) if waiting else []
    urls = part_urls(ctx, key, file, missing, base_url, expires_at)
    parts = [
        Part(
            number=number,
            size=part_size(file, number),
            uploaded=number not in urls,
            etag=arrived[number].etag if number in arrived and number not in urls else None,
            url=urls.get(number),
        )
        for number in range(1, part_count(file) + 1)
    ]
    return FileUpload(path=file.path, size=file.size, part_size=file.part_bytes, parts=parts)


def part_urls(
    ctx: Context,
    upload: str,
    file: InParts,
    missing: list[int],
    base_url: str,
    expires_at: datetime,
) -> dict[int, str]:
    """Return where the parts `missing` of the store's upload go, signed until `expires_at`."""
    sizes = {number: part_size(file, number) for number in missing}
    urls = ctx.store.part_urls(upload, sizes, timedelta(minutes=ctx.settings.url_minutes))
    if urls is not None:
        return urls
    return {
        number: part_url(ctx, base_url, upload, number, size, expires_at)
        for number, size in sizes.items()
    }
