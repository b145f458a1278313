"""
The bytes of uploads where the store has no URLs of its own: ours, and what arrives under them.

A part's URL is its own credential, good for one part of one size until it expires, so that no
token goes to wherever the bytes go.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributionRow, HubUploadRow
from coldfusion_server.services.context import Context
from coldfusion_server.storage import PartWriter
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import (
    ContributionNotFound,
    InvalidRequest,
    StateConflict,
    StorageFull,
    TooLarge,
    UploadRefused,
)


@dataclass(frozen=True)
class PartTicket:
    """What a part's URL says, once its signature was checked; the size is in bytes."""

    upload: str
    number: int
    size: int


def part_url(
    ctx: Context, base_url: str, upload: str, number: int, size: int, expires_at: datetime
) -> str:
    """Return where part `number` of the upload, of `size` bytes, is to be PUT."""
    return signed_url(ctx, "PUT", base_url, f"/v1/uploads/{upload}/{number}", size, expires_at)


def signed_url(
    ctx: Context, method: str, base_url: str, path: str, size: int, expires_at: datetime
) -> str:
    """Return a URL that is its own credential, for one method and `size` bytes, for a while."""
    expires = int(expires_at.timestamp())
    signature = _signature(ctx, method, path, str(size), str(expires))
    return f"{base_url}{path}?size={size}&expires={expires}&signature={signature}"


def check_url(
    ctx: Context, path: str, upload: str, number: int, query: dict[str, str]
) -> PartTicket:
    """
    Check a part's URL before a byte of its body is read.

    Raises:
        UploadRefused: the URL was not signed by us for this part, or it has expired.
    """
    return PartTicket(upload, number, signed_size(ctx, "PUT", path, query))


def signed_size(ctx: Context, method: str, path: str, query: Mapping[str, str]) -> int:
    """
    Return the size that a URL of `signed_url` names.

    Raises:
        UploadRefused: the URL was not signed by us for this, or it has expired.
    """
    size, expires = query.get("size", ""), query.get("expires", "")
    signature = query.get("signature", "")
    if not signature.isascii() or not hmac.compare_digest(
        _signature(ctx, method, path, size, expires), signature
    ):
        raise UploadRefused("The upload URL is not one that this server has signed.")
    if int(expires) < ctx.now().timestamp():
        raise UploadRefused(
            "The upload URL has expired.", hint="Ask for the upload plan again; it has new ones."
        )
    return int(size)


def check_waiting(ctx: Context, upload: str) -> None:
    """
    Check that the upload is one that still waits for bytes.

    Raises:
        ContributionNotFound, StateConflict: it does not.
        StorageFull: there is no room for more.
    """
    with ctx.database.read() as session:
        name = upload.split(".", 1)[0]
        row = session.scalar(select(ContributionRow).where(ContributionRow.id == name))
        if row is None and not _is_staged(session, name):
            raise ContributionNotFound("There is no such upload.")
        if row is not None and row.state != ContributionState.DECLARED:
            raise StateConflict(f"The contribution is {row.state}; it takes no more bytes.")
    check_room(ctx, 0)


def _is_staged(session: Session, name: str) -> bool:
    """Return whether it is an upload of the hub door's, of which nothing is declared yet."""
    row = session.get(HubUploadRow, name)
    return row is not None and not row.stored


def check_room(ctx: Context, size: int) -> None:
    """Raise `StorageFull` unless `size` more bytes leave the reserve free."""
    free = ctx.store.free_bytes()
    if free is not None and free - size < ctx.settings.min_free_bytes:
        raise StorageFull(
            "The Repository has no room for this upload.",
            hint="Nothing is lost; try again later, the upload goes on where it stopped.",
        )


def md5_of(header: str | None) -> str | None:
    """Return the checksum of a Content-MD5 header in hexadecimal; raises `InvalidRequest`."""
    if header is None:
        return None
    try:
        md5 = base64.b64decode(header, validate=True)
    except (binascii.Error, ValueError):
        md5 = b""
    if len(md5) != hashlib.md5(usedforsecurity=False).digest_size:
        raise InvalidRequest("The Content-MD5 header is not the base64 of an MD5.")
    return md5.hex()


class PartReceiver:
    """The body of one part: counted while it arrives, kept only if it is what was signed."""

    def __init__(self, ctx: Context, ticket: PartTicket, md5: str | None) -> None:
        """
        Begin the part.

        Args:
            ctx: the service's surroundings.
            ticket: what was signed.
            md5: of the body, as its sender says; null: nothing was said.
        """
        self.ticket = ticket
        self.md5 = md5
        self.received = 0
        self.writer: PartWriter = ctx.store.open_part(ticket.upload, ticket.number)

    def write(self, data: bytes) -> None:
        """Take the next bytes; raises `TooLarge` at the first byte too many."""
        self.received += len(data)
        if self.received > self.ticket.size:
            raise TooLarge(f"The body is longer than the {self.ticket.size} bytes of this part.")
        self.writer.write(data)

    def finish(self) -> str:
        """
        Keep the part and return its ETag.

        Raises:
            UploadRefused: it is too short.
            DigestMismatch: it is not what its sender had sent.
        """
        if self.received != self.ticket.size:
            raise UploadRefused(
                f"The body has {self.received} bytes where this part has {self.ticket.size}.",
                hint="Send the part again.",
            )
        return self.writer.commit(self.md5)

    def abort(self) -> None:
        """Forget what has arrived."""
        self.writer.abort()


def _signature(ctx: Context, method: str, path: str, size: str, expires: str) -> str:
    message = f"{method}\n{path}\n{size}\n{expires}".encode()
    return hmac.new(ctx.secret, message, hashlib.sha256).hexdigest()
