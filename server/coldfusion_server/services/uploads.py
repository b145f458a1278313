"""
Upload plans: parts, their signed URLs, and the bytes that arrive under them.

A part's URL is its own credential, good for one part of one size until it expires, so that no
token goes to wherever the bytes go. The local store's URLs lead to this server.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select

from coldfusion_server.db.tables import ContributionFileRow, ContributionRow
from coldfusion_server.services.context import Context
from coldfusion_server.storage import PartWriter, StoredPart
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import (
    ContributionNotFound,
    StateConflict,
    StorageFull,
    TooLarge,
    UploadRefused,
)
from coldfusion_shared.schemas.contributions import FileUpload, Part, UploadPlan

# S3's own limit on the number of parts; both stores look the same to the client.
MAX_PARTS = 10_000


@dataclass(frozen=True)
class PartTicket:
    """What a part's URL says, once its signature was checked."""

    upload: str
    number: int
    size: int


def part_bytes_for(ctx: Context, size: int) -> int:
    """Return the size of the parts of a file of `size` bytes, in bytes."""
    return max(ctx.settings.part_bytes, math.ceil(size / MAX_PARTS))


def upload_key(contribution: str, index: int) -> str:
    """Return the store's key of the contribution's file number `index`."""
    return f"{contribution}.{index}"


def plan(ctx: Context, row: ContributionRow, base_url: str) -> UploadPlan:
    """Return where the missing parts of the contribution go; URLs are made anew each time."""
    expires_at = ctx.now() + timedelta(minutes=ctx.settings.url_minutes)
    waiting = row.state == ContributionState.DECLARED
    files = []
    for index, file in enumerate(row.files):
        arrived = ctx.store.parts(upload_key(row.id, index)) if waiting else None
        parts = [
            _part(ctx, row.id, index, file, number, arrived, base_url, int(expires_at.timestamp()))
            for number in range(1, part_count(file) + 1)
        ]
        files.append(
            FileUpload(path=file.path, size=file.size, part_size=file.part_bytes, parts=parts)
        )
    return UploadPlan(contribution=row.id, expires_at=expires_at, files=files)


def part_count(file: ContributionFileRow) -> int:
    """Return how many parts the file has."""
    return max(1, math.ceil(file.size / file.part_bytes))


def part_size(file: ContributionFileRow, number: int) -> int:
    """Return the size of part `number`, counted from 1, in bytes."""
    return min(file.part_bytes, file.size - (number - 1) * file.part_bytes)


def missing_parts(ctx: Context, row: ContributionRow) -> list[str]:
    """Return what has not arrived yet, in words."""
    missing = []
    for index, file in enumerate(row.files):
        arrived = ctx.store.parts(upload_key(row.id, index))
        lacking = [
            number
            for number in range(1, part_count(file) + 1)
            if number not in arrived or arrived[number].size != part_size(file, number)
        ]
        if lacking:
            missing.append(f"{len(lacking)} of {part_count(file)} parts of {file.path}")
    return missing


def arrived_bytes(ctx: Context, row: ContributionRow) -> int:
    """Return how many bytes of the contribution have arrived."""
    if row.state != ContributionState.DECLARED:
        return sum(file.size for file in row.files)
    return sum(
        part.size
        for index in range(len(row.files))
        for part in ctx.store.parts(upload_key(row.id, index)).values()
    )


def check_url(
    ctx: Context, path: str, upload: str, number: int, query: dict[str, str]
) -> PartTicket:
    """
    Check a part's URL before a byte of its body is read.

    Raises:
        UploadRefused: the URL was not signed by us for this part, or it has expired.
    """
    size, expires = query.get("size", ""), query.get("expires", "")
    signature = query.get("signature", "")
    if not signature.isascii() or not hmac.compare_digest(
        _signature(ctx, path, size, expires), signature
    ):
        raise UploadRefused("The upload URL is not one that this server has signed.")
    if int(expires) < ctx.now().timestamp():
        raise UploadRefused(
            "The upload URL has expired.", hint="Ask for the upload plan again; it has new ones."
        )
    return PartTicket(upload, number, int(size))


def check_waiting(ctx: Context, upload: str) -> None:
    """
    Check that the upload is one that still waits for bytes.

    Raises:
        ContributionNotFound, StateConflict: it does not.
        StorageFull: there is no room for more.
    """
    with ctx.database.read() as session:
        contribution = upload.split(".", 1)[0]
        row = session.scalar(select(ContributionRow).where(ContributionRow.id == contribution))
        if row is None:
            raise ContributionNotFound("There is no such upload.")
        if row.state != ContributionState.DECLARED:
            raise StateConflict(f"The contribution is {row.state}; it takes no more bytes.")
    check_room(ctx, 0)


def check_room(ctx: Context, size: int) -> None:
    """Raise `StorageFull` unless `size` more bytes leave the reserve free."""
    free = ctx.store.free_bytes()
    if free is not None and free - size < ctx.settings.min_free_bytes:
        raise StorageFull(
            "The Repository has no room for this upload.",
            hint="Nothing is lost; try again later, the upload goes on where it stopped.",
        )


class PartReceiver:
    """The body of one part: counted while it arrives, kept only if it is what was signed."""

    def __init__(self, ctx: Context, ticket: PartTicket) -> None:
        """Begin the part."""
        self.ticket = ticket
        self.received = 0
        self.writer: PartWriter = ctx.store.open_part(ticket.upload, ticket.number)

    def write(self, data: bytes) -> None:
        """Take the next bytes; raises `TooLarge` at the first byte too many."""
        self.received += len(data)
        if self.received > self.ticket.size:
            raise TooLarge(f"The body is longer than the {self.ticket.size} bytes of this part.")
        self.writer.write(data)

    def finish(self) -> str:
        """Keep the part and return its ETag; raises `UploadRefused` if it is too short."""
        if self.received != self.ticket.size:
            raise UploadRefused(
                f"The body has {self.received} bytes where this part has {self.ticket.size}.",
                hint="Send the part again.",
            )
        return self.writer.commit()

    def abort(self) -> None:
        """Forget what has arrived."""
        self.writer.abort()


def _part(
    ctx: Context,
    contribution: str,
    index: int,
    file: ContributionFileRow,
    number: int,
    arrived: dict[int, StoredPart] | None,
    base_url: str,
    expires: int,
) -> Part:
    size = part_size(file, number)
    stored = (arrived or {}).get(number)
    here = arrived is None or (stored is not None and stored.size == size)
    path = f"/v1/uploads/{upload_key(contribution, index)}/{number}"
    signature = _signature(ctx, path, str(size), str(expires))
    url = f"{base_url}{path}?size={size}&expires={expires}&signature={signature}"
    return Part(
        number=number,
        size=size,
        uploaded=here,
        etag=stored.etag if stored is not None and here else None,
        url=None if here else url,
    )


def _signature(ctx: Context, path: str, size: str, expires: str) -> str:
    message = f"PUT\n{path}\n{size}\n{expires}".encode()
    return hmac.new(ctx.secret, message, hashlib.sha256).hexdigest()
