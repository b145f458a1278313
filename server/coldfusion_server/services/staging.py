"""
Bytes that come before anything is declared of them, as the hub door's clients send them.

They belong to one contributor and one model. A declaration takes them over without a copy; what
none takes expires as an unfinished upload does, and counts as one until then.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import (
    ContributionFileRow,
    ContributionRow,
    HubUploadRow,
    ModelRow,
    RoundRow,
)
from coldfusion_server.services import quotas, uploads
from coldfusion_server.services.context import Context
from coldfusion_server.services.declaring import Sent, check_not_contributed, check_size
from coldfusion_server.services.garbage import check_stored, remove_staged
from coldfusion_server.services.lookup import find_base, find_model, manifest_of
from coldfusion_server.services.parts import check_room
from coldfusion_server.services.references import WAITED_FOR, refer
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared.errors import (
    AlreadyContributed,
    ColdFusionError,
    InvalidRequest,
    QuotaExceeded,
    TooLarge,
    UploadIncomplete,
)
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.schemas.tokens import Role
from coldfusion_shared.weights.layout import SINGLE_FILE

# Of one contributor at a time, be they ever so small.
MAX_FILES = 100
# S3 takes no larger part, and the local store need not.
MAX_PART_BYTES = 5 * 2**30


@dataclass(frozen=True)
class Wanted:
    """A file that somebody is about to send: its SHA-256 and size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Place:
    """
    What to do about a wanted file.

    Attributes:
        file: the file.
        part_bytes: size of its parts.
        urls: where the parts go that have not arrived; none: it is all here.
        upload: the store's key of its upload; null: it has none.
        error: why it cannot be taken.
    """

    file: Wanted
    part_bytes: int = 0
    urls: dict[int, str] = field(default_factory=dict)
    upload: str | None = None
    error: ColdFusionError | None = None

    @property
    def in_parts(self) -> bool:
        """Return whether it is sent in several parts."""
        return self.file.size > self.part_bytes


def stage(
    ctx: Context,
    name: str,
    principal: Principal | None,
    files: Sequence[Wanted],
    base_url: str,
    *,
    in_parts: bool = True,
) -> list[Place]:
    """
    Return what to do about each of `files`, which is begun with that; harmless to repeat.

    Args:
        ctx: the service's surroundings.
        name: the model that they are for.
        principal: who will send them.
        files: what will be sent.
        base_url: under which this client reaches the server.
        in_parts: whether the client can send a large file in several parts.

    Raises:
        Unauthenticated, Forbidden, ModelNotFound: nothing can be sent.
    """
    who = require(principal, Role.CONTRIBUTOR, name)
    with ctx.database.write() as session:
        model = find_model(session, name, principal)
        quotas.lock(session, who)
        now = _Now.of(session, model)
        begun = [_begin(ctx, session, now, who, file, in_parts=in_parts) for file in files]
        again = [
            isinstance(row, AlreadyContributed) and _waits(session, model, who, file)
            for file, row in zip(files, begun, strict=True)
        ]
    # The store is asked when no transaction waits for it any more.
    return [
        _place(ctx, file, row, base_url)
        if isinstance(row, HubUploadRow)
        # The commit that follows tells whether it is the same push again.
        else Place(file, error=None if same else row)
        for file, row, same in zip(files, begun, again, strict=True)
    ]


def reserve(ctx: Context, name: str, principal: Principal | None, file: Wanted) -> None:
    """Count a file against quotas and room before its bytes are stored; raises what `stage` has."""
    who = require(principal, Role.CONTRIBUTOR, name)
    with ctx.database.write() as session:
        model = find_model(session, name, principal)
        quotas.lock(session, who)
        begun = _begin(ctx, session, _Now.of(session, model), who, file, in_parts=True)
    if isinstance(begun, ColdFusionError):
        raise begun


def note_stored(
    ctx: Context, model_name: str, principal: Principal | None, sha256: str, size: int
) -> None:
    """
    Stage a file whose bytes the caller has just stored as an object, and verified by that.

    Args:
        ctx: the service's surroundings.
        model_name: which model it is for.
        principal: who has sent the bytes.
        sha256: the object's name.
        size: its bytes.

    Raises:
        StorageUnavailable: garbage collection took the object meanwhile.
        TooLarge, QuotaExceeded, AlreadyContributed: it cannot be taken.
    """
    who = require(principal, Role.CONTRIBUTOR, model_name)
    with ctx.database.write() as session:
        refer(session)
        model = find_model(session, model_name, principal)
        quotas.lock(session, who)
        row = _locked(session, model, who, sha256)
        key = None if row is None or row.stored else key_of(row)
        if row is None:
            _check(ctx, session, _Now.of(session, model), who, Wanted(sha256, size))
            row = _add(ctx, session, model, who, Wanted(sha256, size), part_bytes=max(1, size))
        elif row.size != size:
            raise InvalidRequest(f"The bytes with the SHA-256 {sha256} are {row.size}, not {size}.")
        check_stored(ctx, [FileEntry(path=SINGLE_FILE, size=size, sha256=sha256)])
        row.stored = True
    if key is not None:
        ctx.store.discard_upload(key)


def check_announced(
    ctx: Context, name: str, principal: Principal | None, sizes: Mapping[str, int]
) -> None:
    """
    Check that files could be taken at all, by path and size in bytes, before any is sent.

    What is on its way already is not looked at: it may be these very files.

    Raises:
        TooLarge, QuotaExceeded, StorageFull: they could not.
    """
    who = require(principal, Role.CONTRIBUTOR, name)
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        base_files = manifest_of(find_base(session, model, f"v{model.current}")).files
        for path, size in sizes.items():
            check_size(base_files, path, size)
        quotas.check_bytes(ctx, session, who, sum(sizes.values()))
    check_room(ctx, sum(sizes.values()))


def check_wanted(
    ctx: Context, session: Session, model: ModelRow, who: Principal, files: Sequence[Wanted]
) -> None:
    """
    Check, in the caller's transaction, that each of `files` could be staged, or is; holds nothing.

    Raises:
        TooLarge, QuotaExceeded, AlreadyContributed, StorageFull: one could not.
    """
    quotas.lock(session, who)
    now = _Now.of(session, model)
    for file in files:
        if _row(session, model, who, file.sha256) is None:
            _check(ctx, session, now, who, file)


def check_arrived(
    ctx: Context, name: str, principal: Principal | None, files: Sequence[Wanted]
) -> None:
    """
    Check that the bytes of `files` are all here; what they are the worker finds out.

    Raises:
        UploadIncomplete: some are not, or were given up.
    """
    who = require(principal, Role.CONTRIBUTOR, name)
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        rows = {file.sha256: _row(session, model, who, file.sha256) for file in files}
    for file in files:
        row = rows[file.sha256]
        if row is None or row.size != file.size:
            raise _not_sent(file.sha256)
        _check_parts(ctx, row)


def check_parts(ctx: Context, upload: str) -> None:
    """Check that all parts of the upload of that key are here; raises `UploadIncomplete`."""
    with ctx.database.read() as session:
        row = session.get(HubUploadRow, upload.split(".", 1)[0])
    # What was declared already is not asked for any more.
    if row is not None:
        _check_parts(ctx, row)


def take(
    session: Session, model: ModelRow, who: Principal, files: Sequence[FileEntry]
) -> dict[str, Sent]:
    """
    Hand the bytes of `files` over to the declaration of the caller's transaction, by path.

    Raises:
        UploadIncomplete: those of one were never sent, or have been given up.
    """
    quotas.lock(session, who)
    rows = {file.sha256: _locked(session, model, who, file.sha256) for file in files}
    sent = {}
    for file in files:
        row = rows[file.sha256]
        if row is None or row.size != file.size:
            raise _not_sent(file.path)
        sent[file.path] = Sent(key_of(row), row.part_bytes, row.stored)
    for row in rows.values():
        session.delete(row)
    session.flush()
    return sent


def expire(ctx: Context) -> int:
    """Give up what nobody has declared in time, and free its bytes; return how many files."""
    with ctx.database.write() as session:
        query = select(HubUploadRow).where(HubUploadRow.expires_at <= ctx.now())
        rows = session.scalars(query.with_for_update(skip_locked=True)).all()
        for row in rows:
            session.delete(row)
    for row in rows:
        if not row.stored:
            ctx.store.discard_upload(key_of(row))
    stored = [row.sha256 for row in rows if row.stored]
    if stored:
        remove_staged(ctx, stored)
    return len(rows)


def key_of(row: HubUploadRow) -> str:
    """Return the store's key of the upload."""
    return uploads.upload_key(row.id, 0)


@dataclass(frozen=True)
class _Now:
    """What all files of a request are compared with: their model, its base's files, its round."""

    model: ModelRow
    base_files: Sequence[FileEntry]
    newest: RoundRow

    @classmethod
    def of(cls, session: Session, model: ModelRow) -> _Now:
        """Look once: a manifest takes a while to read, and others wait for the transaction."""
        query = select(RoundRow).where(RoundRow.model_id == model.id)
        newest = session.scalars(query.order_by(RoundRow.number.desc()).limit(1)).one()
        base = find_base(session, model, f"v{model.current}")
        return cls(model, manifest_of(base).files, newest)


def _begin(
    ctx: Context,
    session: Session,
    now: _Now,
    who: Principal,
    file: Wanted,
    *,
    in_parts: bool,
) -> HubUploadRow | ColdFusionError:
    """Return the file's row, a new one where there was none, or why there can be none."""
    try:
        row = _locked(session, now.model, who, file.sha256)
        if row is None:
            _check(ctx, session, now, who, file)
            part_bytes = uploads.part_bytes_for(ctx, file.size)
            if not in_parts and file.size > part_bytes:
                part_bytes = _one_part(file)
            row = _add(ctx, session, now.model, who, file, part_bytes)
        elif row.size != file.size:
            raise InvalidRequest(
                f"You have begun to send {file.sha256} as {row.size} bytes, not {file.size}."
            )
        elif not in_parts and row.size > row.part_bytes:
            _one_part(file)
    except ColdFusionError as error:
        return error
    # Asking keeps it alive.
    row.expires_at = ctx.now() + timedelta(hours=ctx.settings.upload_hours)
    return row


def _one_part(file: Wanted) -> int:
    if file.size > MAX_PART_BYTES:
        raise TooLarge(
            f"{file.size} bytes are too many for one request.",
            hint="Use a client that sends large files in parts.",
        )
    return file.size


def _check(ctx: Context, session: Session, now: _Now, who: Principal, file: Wanted) -> None:
    """Raise what a declaration of the file would, as far as that can be known before."""
    entry = FileEntry(path=SINGLE_FILE, size=file.size, sha256=file.sha256)
    check_size(now.base_files, SINGLE_FILE, file.size)
    check_not_contributed(session, now.model, who, [entry], file.sha256)
    quotas.check_staging(ctx, session, who, now.newest, file.size)
    mine = HubUploadRow.contributor_id == who.contributor_id
    count = session.scalar(select(func.count()).select_from(HubUploadRow).where(mine)) or 0
    if count >= MAX_FILES:
        raise QuotaExceeded(
            f"You have {count} files here that belong to no contribution yet; {MAX_FILES} are the "
            "most.",
            hint="Finish one push first. What none takes is given up after a while.",
        )
    check_room(ctx, 2 * file.size)


def _add(
    ctx: Context,
    session: Session,
    model: ModelRow,
    who: Principal,
    file: Wanted,
    part_bytes: int,
) -> HubUploadRow:
    now = ctx.now()
    row = HubUploadRow(
        id=secrets.token_hex(8),
        model_id=model.id,
        contributor_id=who.contributor_id,
        sha256=file.sha256,
        size=file.size,
        part_bytes=part_bytes,
        stored=False,
        created_at=now,
        expires_at=now + timedelta(hours=ctx.settings.upload_hours),
    )
    session.add(row)
    session.flush()
    return row


def _row(session: Session, model: ModelRow, who: Principal, sha256: str) -> HubUploadRow | None:
    return session.scalar(_query(model, who, sha256))


def _locked(session: Session, model: ModelRow, who: Principal, sha256: str) -> HubUploadRow | None:
    """Return the file's row so that it cannot expire before the caller's transaction ends."""
    return session.scalar(_query(model, who, sha256).with_for_update())


def _query(model: ModelRow, who: Principal, sha256: str) -> Select[HubUploadRow]:
    return select(HubUploadRow).where(
        HubUploadRow.model_id == model.id,
        HubUploadRow.contributor_id == who.contributor_id,
        HubUploadRow.sha256 == sha256,
    )


def _waits(session: Session, model: ModelRow, who: Principal, file: Wanted) -> bool:
    """Return whether the file is of a contribution of the same contributor that waits still."""
    query = (
        select(ContributionRow.id)
        .join(ContributionFileRow, ContributionFileRow.contribution_id == ContributionRow.id)
        .where(
            ContributionRow.model_id == model.id,
            ContributionRow.contributor_id == who.contributor_id,
            ContributionRow.state.in_(WAITED_FOR),
            ContributionFileRow.sha256 == file.sha256,
        )
    )
    return session.scalar(query.limit(1)) is not None


def _place(ctx: Context, file: Wanted, row: HubUploadRow, base_url: str) -> Place:
    key = key_of(row)
    if row.stored:
        return Place(file, row.part_bytes)
    missing = uploads.lacking_parts(row, ctx.store.parts(key))
    if not missing:
        return Place(file, row.part_bytes)
    # All of them: clients count the URLs.
    numbers = list(range(1, uploads.part_count(row) + 1))
    expires_at = ctx.now() + timedelta(minutes=ctx.settings.url_minutes)
    urls = uploads.part_urls(ctx, key, row, numbers, base_url, expires_at)
    return Place(file, row.part_bytes, urls, key)


def _check_parts(ctx: Context, row: HubUploadRow) -> None:
    if row.stored:
        return
    missing = uploads.lacking_parts(row, ctx.store.parts(key_of(row)))
    if missing:
        raise UploadIncomplete(
            f"{len(missing)} of {uploads.part_count(row)} parts of {row.sha256} have not arrived.",
            hint="Run the same command again; it goes on where it stopped.",
        )


def _not_sent(name: str) -> UploadIncomplete:
    return UploadIncomplete(
        f"The bytes of {name} were not sent, or were given up meanwhile.",
        hint="Run the same command again.",
    )
