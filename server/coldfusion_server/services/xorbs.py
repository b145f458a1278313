"""
Xorbs: pieces of files, as hf_xet sends them, until the files are put together and contributed.

They belong to one contributor and one model. Nobody else can name them, nor find out that they are
here. They are given up with the contribution that was made of them, or when they expire.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import HubAreaRow, HubXorbRow, ModelRow
from coldfusion_server.services import quotas, usage
from coldfusion_server.services.context import Context
from coldfusion_server.services.declaring import most_bytes
from coldfusion_server.services.garbage import check_stored, remove_staged
from coldfusion_server.services.lookup import find_base, find_model, manifest_of
from coldfusion_server.services.parts import check_room
from coldfusion_server.services.references import refer
from coldfusion_server.services.tokens import Principal, signed_in
from coldfusion_server.services.xet_tokens import Ticket
from coldfusion_server.xet.xorb import MAX_XORB_BYTES, Walker
from coldfusion_shared.errors import (
    ColdFusionError,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    TooLarge,
)
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.weights.layout import SINGLE_FILE

log = structlog.get_logger(__name__)

# Of one contributor and model at a time, be they ever so small.
MAX_XORBS = 20_000
BATCH = 500
_NAME = re.compile("[0-9a-f]{64}")


def area(ctx: Context, ticket: Ticket) -> str:
    """
    Return the name of the area that the ticket's holder may send to now.

    Whatever is sent to an area stays for at least as long as the area is given out, and half as
    long again as an unfinished upload is kept.
    """
    now, who = ctx.now(), ticket.who
    with ctx.database.write() as session:
        quotas.lock(session, who)
        model = find_model(session, ticket.model, who)
        row = _area(ctx, session, model, who.contributor_id)
        if row.since + timedelta(hours=ctx.settings.upload_hours / 2) <= now:
            _next_area(ctx, row)
        said = f"area\n{who.contributor_id}\n{model.id}\n{row.number}"
    # A secret of this server's: another one, later at the same address, has other areas.
    return hmac.new(ctx.secret, said.encode(), hashlib.sha256).hexdigest()[:16]


def receive(ctx: Context, ticket: Ticket, name: str, length: int | None) -> XorbReceiver | None:
    """
    Begin a xorb; what was begun counts, until it is aborted or expires.

    Args:
        ctx: the service's surroundings.
        ticket: its sender's.
        name: its hash, in hexadecimal, as its sender says.
        length: of the body, in bytes; null: it was not said.

    Returns:
        what takes its bytes; null: its sender has sent it before.

    Raises:
        InvalidRequest, TooLarge, QuotaExceeded, StorageFull: it cannot be taken; nothing needs to
            be read.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest("A xorb is named by its hash, 64 hexadecimal digits.")
    if length is not None and length > MAX_XORB_BYTES:
        raise TooLarge(f"A xorb has at most {MAX_XORB_BYTES} bytes, this one {length}.")
    size = MAX_XORB_BYTES if length is None else length
    check_room(ctx, size)
    with ctx.database.write() as session:
        quotas.lock(session, ticket.who)
        model = find_model(session, ticket.model, ticket.who)
        row = _own_row(ctx, session, model, ticket.who, name)
        if row.sha256 is not None:
            row.expires_at = _expires_at(ctx)
            return None
        row.size = size
        session.flush()
        _check_most(ctx, session, model, ticket.who)
    return XorbReceiver(ctx, ticket, name)


class XorbReceiver:
    """The body of one xorb: looked through while it arrives, kept only if it is one."""

    def __init__(self, ctx: Context, ticket: Ticket, name: str) -> None:
        """Use `receive`, which looks whether it may come."""
        self.ctx, self.ticket, self.name = ctx, ticket, name
        self.walker = Walker()
        self.writer = ctx.store.open_object()
        self._is_kept = False

    def write(self, data: bytes) -> None:
        """Take the next bytes; raises `InvalidRequest` or `TooLarge` at once where it is none."""
        self.writer.write(self.walker.feed(data))

    def finish(self) -> None:
        """Keep it, with the places of its pieces behind; raises `InvalidRequest`."""
        index = self.walker.finish()
        self.writer.write(index.to_bytes())
        stored = self.writer.commit()
        who = self.ticket.who
        with self.ctx.database.write() as session:
            refer(session)
            quotas.lock(session, who)
            model = find_model(session, self.ticket.model, who)
            row = _own_row(self.ctx, session, model, who, self.name)
            row.sha256, row.size, row.pieces = stored.sha256, stored.size, len(index.ends)
            file = FileEntry(path="xorb", size=stored.size, sha256=stored.sha256)
            check_stored(self.ctx, [file])
        self._is_kept = True

    def abort(self) -> None:
        """Forget what has arrived; harmless after `finish`."""
        self.writer.abort()
        if not self._is_kept:
            with self.ctx.database.write() as session:
                model = find_model(session, self.ticket.model, self.ticket.who)
                mine = _mine(model, self.ticket.who, [self.name])
                session.execute(delete(HubXorbRow).where(*mine, HubXorbRow.sha256.is_(None)))


def use(ctx: Context, ticket: Ticket, file_sha256: str, names: Collection[str]) -> None:
    """Write down that the file was made of these xorbs, so that they go when it is contributed."""
    with ctx.database.write() as session:
        model = find_model(session, ticket.model, ticket.who)
        for some in _batches(names):
            mine = _mine(model, ticket.who, some)
            session.execute(update(HubXorbRow).where(*mine).values(file_sha256=file_sha256))


def find(ctx: Context, ticket: Ticket, names: Collection[str]) -> dict[str, tuple[str, int]]:
    """
    Return digest and number of pieces of the sender's own xorbs, by name.

    Raises:
        NotFound: one is not here, or somebody else's. The next upload goes to another area, so
            that the sender's client, which believes that it is, sends it again.
    """
    found: dict[str, tuple[str, int]] = {}
    with ctx.database.read() as session:
        model = find_model(session, ticket.model, ticket.who)
        for some in _batches(names):
            query = select(HubXorbRow).where(*_mine(model, ticket.who, some))
            for row in session.scalars(query.where(HubXorbRow.expires_at > ctx.now())):
                if row.sha256 is not None:
                    found[row.hash] = row.sha256, row.pieces
    if missing := len(set(names) - found.keys()):
        with ctx.database.write() as session:
            quotas.lock(session, ticket.who)
            _next_area(ctx, _area(ctx, session, model, ticket.who.contributor_id))
        raise NotFound(
            f"{missing} of the xorbs that the file is made of are not here.",
            hint="Run the same command again; it sends all of them then.",
        )
    return found


def give_up(ctx: Context, name: str, principal: Principal | None, files: Collection[str]) -> None:
    """
    Give up the xorbs of files that are contributed; harmless to repeat.

    Args:
        ctx: the service's surroundings.
        name: the model that they were contributed to.
        principal: by whom.
        files: their digests.
    """
    who = signed_in(principal)
    made = HubXorbRow.file_sha256.in_(files)
    of_mine = HubXorbRow.contributor_id == who.contributor_id
    with ctx.database.read() as session:
        if session.scalar(select(HubXorbRow.id).where(of_mine, made).limit(1)) is None:
            return
    with ctx.database.write() as session:
        quotas.lock(session, who)
        model = find_model(session, name, who)
        query = select(HubXorbRow).where(of_mine, made, HubXorbRow.model_id == model.id)
        digests = _forget(session, session.scalars(query).all())
        if digests:
            _next_area(ctx, _area(ctx, session, model, who.contributor_id))
    _remove(ctx, digests)


def expire(ctx: Context) -> int:
    """Give up what nobody has contributed in time, and free its bytes; return how many xorbs."""
    past = HubXorbRow.expires_at <= ctx.now()
    with ctx.database.read() as session:
        if session.scalar(select(HubXorbRow.id).where(past).limit(1)) is None:
            return 0
    with ctx.database.write() as session:
        rows = session.scalars(select(HubXorbRow).where(past).with_for_update()).all()
        digests = _forget(session, rows)
    _remove(ctx, digests)
    return len(rows)


def _forget(session: Session, rows: Sequence[HubXorbRow]) -> list[str]:
    """Remove the rows, and return what their objects are called."""
    for row in rows:
        session.delete(row)
    return [row.sha256 for row in rows if row.sha256 is not None]


def _remove(ctx: Context, digests: Sequence[str]) -> None:
    if not digests:
        return
    try:
        remove_staged(ctx, digests)
    except ColdFusionError as error:
        # Nothing names them any more: a collection removes them.
        log.warning("xorbs stay for now", why=error.message)


def _check_most(ctx: Context, session: Session, model: ModelRow, who: Principal) -> None:
    """Check what one contributor may have here, the new xorb included; raises `QuotaExceeded`."""
    uploads, most = ctx.settings.quota_uploads, ctx.settings.quota_bytes
    of_mine = HubXorbRow.contributor_id == who.contributor_id
    here = (of_mine, HubXorbRow.model_id == model.id)
    count = session.scalar(select(func.count()).select_from(HubXorbRow).where(*here)) or 0
    # As many contributions as one may send at a time, each as large as it can be.
    base_files = manifest_of(find_base(session, model, f"v{model.current}")).files
    largest = most_bytes(base_files, SINGLE_FILE)
    too_much = uploads is not None and _bytes(session, *here) > uploads * largest
    if count > MAX_XORBS or too_much:
        raise QuotaExceeded(
            "Too much is on its way from you that belongs to no contribution yet.",
            hint="Finish one push first. What belongs to none is given up after a while.",
        )
    if most is None:
        return
    used = usage.of_contributor(session, who.contributor_id, who.name)
    wanted = used.kept_bytes + used.unfinished_bytes + _bytes(session, of_mine)
    if wanted > most:
        raise QuotaExceeded(
            f"With this upload you would have {wanted} of {most} bytes in use.",
            hint=f"Unfinished uploads count until they are given up. {quotas.ASK}",
        )


def _bytes(session: Session, *where: ColumnElement[bool]) -> int:
    # PostgreSQL's sums are decimals.
    return int(session.scalar(select(func.sum(HubXorbRow.size)).where(*where)) or 0)


def _own_row(
    ctx: Context, session: Session, model: ModelRow, who: Principal, name: str
) -> HubXorbRow:
    """Return the row of the contributor's xorb of that name, a new one where there is none."""
    row = session.scalar(select(HubXorbRow).where(*_mine(model, who, [name])))
    if row is None:
        row = HubXorbRow(
            model_id=model.id,
            contributor_id=who.contributor_id,
            hash=name,
            size=0,
            created_at=ctx.now(),
            expires_at=_expires_at(ctx),
        )
        session.add(row)
        session.flush()
    return row


def _mine(model: ModelRow, who: Principal, names: Collection[str]) -> list[ColumnElement[bool]]:
    """Return the conditions of the contributor's xorbs of those names."""
    return [
        HubXorbRow.model_id == model.id,
        HubXorbRow.contributor_id == who.contributor_id,
        HubXorbRow.hash.in_(names),
    ]


def _batches(names: Collection[str]) -> Iterator[Sequence[str]]:
    """Yield the names, as many at a time as a query can take."""
    left = sorted(set(names))
    for start in range(0, len(left), BATCH):
        yield left[start : start + BATCH]


def _area(ctx: Context, session: Session, model: ModelRow, contributor_id: int) -> HubAreaRow:
    """Return the row of the area in use; the caller has locked the contributor."""
    row = session.get(HubAreaRow, (model.id, contributor_id))
    if row is None:
        row = HubAreaRow(
            model_id=model.id, contributor_id=contributor_id, number=1, since=ctx.now()
        )
        session.add(row)
        session.flush()
    return row


def _next_area(ctx: Context, row: HubAreaRow) -> None:
    row.number, row.since = row.number + 1, ctx.now()


def _expires_at(ctx: Context) -> datetime:
    return ctx.now() + timedelta(hours=ctx.settings.upload_hours)
