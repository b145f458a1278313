"""Declaring a contribution: everything that can be refused before the first byte is sent."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import (
    ContributionFileRow,
    ContributionRow,
    ModelRow,
    RoundRow,
)
from coldfusion_server.faults import fault_point
from coldfusion_server.services import late, rounds, uploads
from coldfusion_server.services.context import Context
from coldfusion_server.services.contributions import already_contributed, tell, to_schema
from coldfusion_server.services.lookup import find_base, find_model, manifest_of, policy_of
from coldfusion_server.services.parts import check_room
from coldfusion_server.services.past import held
from coldfusion_server.services.quotas import check_quota
from coldfusion_server.services.references import refer
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import (
    EncodingRefused,
    IdempotencyMismatch,
    InvalidRequest,
    TooLarge,
)
from coldfusion_shared.schemas.contributions import Declaration, Declared, Prospect
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.schemas.tokens import Role
from coldfusion_shared.weights.codecs import discover
from coldfusion_shared.weights.codecs.encoding import Encoding
from coldfusion_shared.weights.header import MAX_HEADER_BYTES
from coldfusion_shared.weights.layout import SIDE_FILES, is_weights

# A base in a 2-byte dtype takes contributions in float32, twice its size.
MAX_GROWTH = 2
# The largest tokenizers have some 20 MB.
MAX_SIDE_BYTES = 64 * 2**20


def declare(
    ctx: Context,
    name: str,
    declaration: Declaration,
    key: str,
    principal: Principal | None,
    base_url: str,
) -> tuple[Declared, bool]:
    """
    Announce a contribution; return the answer, and whether it is new.

    The same `key` with the same declaration again returns the same contribution.

    Raises:
        BaseOutdated: it was made from another base than the open round's.
        AlreadyContributed: the same file was contributed before.
        IdempotencyMismatch: the key came before with another declaration.
        TooLarge, QuotaExceeded, StorageFull: it cannot be taken.
    """
    who = require(principal, Role.CONTRIBUTOR, name)
    if not 8 <= len(key) <= 128 or not key.isascii() or not key.isprintable():
        raise InvalidRequest("Idempotency-Key has to be 8 to 128 printable ASCII characters.")
    request = _request_digest(name, declaration)
    try:
        with ctx.database.write() as session:
            refer(session)
            model = find_model(session, name, principal)
            # Before the look at the key: of equal requests at once one makes the row, and the
            # others, who wait here for its transaction, find it.
            newest = rounds.newest(session, model)
            row = _by_key(session, who, key, request) or _under_way(session, who, request)
            new = row is None
            if row is None:
                row = add_row(ctx, session, model, newest, declaration, key, who)
            shown, prospect = to_schema(row), _prospect(session, row, newest)
    except IntegrityError:
        # The same request at the same time: the other one has made the row by now.
        with ctx.database.write() as session:
            row = _by_key(session, who, key, request)
            if row is None:
                raise
            newest = rounds.newest(session, row.model)
            shown, prospect, new = to_schema(row), _prospect(session, row, newest), False
    fault_point(ctx.settings, "contribution.declared")
    # The store is asked when no transaction waits for it any more.
    plan = uploads.plan(ctx, row, base_url)
    parts = [part for file in plan.files for part in file.parts]
    here = sum(part.size for part in parts if part.uploaded)
    return Declared(
        contribution=shown.model_copy(update={"uploaded_bytes": here}),
        prospect=prospect,
        upload=plan,
    ), new


def _prospect(session: Session, row: ContributionRow, newest: RoundRow) -> Prospect | None:
    """Return what will become of it; null where that is settled."""
    if row.state not in (ContributionState.DECLARED, ContributionState.COMPLETED):
        return None
    return late.prospect(late.line_of(session, row.model, newest), row.base_number)


@dataclass(frozen=True)
class Sent:
    """
    A file that has arrived before its declaration.

    Attributes:
        upload: the store's key of its upload.
        part_bytes: size of the upload's parts.
        stored: whether it is an object already, and has no upload.
    """

    upload: str
    part_bytes: int
    stored: bool


def add_row(
    ctx: Context,
    session: Session,
    model: ModelRow,
    newest: RoundRow,
    declaration: Declaration,
    key: str,
    who: Principal,
    sent: Mapping[str, Sent] | None = None,
) -> ContributionRow:
    """
    Declare a contribution in the caller's transaction.

    Args:
        ctx: the service's surroundings.
        session: the transaction, which `refer`s.
        model: what it is for.
        newest: the model's newest round, locked.
        declaration: what is declared.
        key: which no other of the contributor's declarations has.
        who: the contributor.
        sent: those of its files that have arrived, by path.

    Raises:
        BaseOutdated, AlreadyContributed, TooLarge, QuotaExceeded, StorageFull: it cannot be taken.
    """
    sent = sent or {}
    base = find_base(session, model, declaration.base)
    late.check_in_time(late.line_of(session, model, newest), base.number)
    base_files = manifest_of(base).files
    encoding = _check_encoding(model, declaration.encoding)
    update = _check_files(ctx, base_files, declaration.files, encoding)
    source = declaration.weights_sha256 or _digest_of(update)
    check_not_contributed(session, model, who, update, source)
    check_quota(ctx, session, who, newest, _bytes_to_send(base_files, declaration.files))
    now = ctx.now()
    row = ContributionRow(
        id=secrets.token_hex(8),
        model_id=model.id,
        round_id=newest.id,
        base_number=base.number,
        contributor_id=who.contributor_id,
        state=ContributionState.DECLARED,
        encoding=declaration.encoding,
        frozen=declaration.frozen,
        weights_sha256=source,
        idempotency_key=key,
        request_sha256=_request_digest(model.name, declaration),
        work=declaration.work.model_dump(mode="json"),
        findings=[],
        declared_at=now,
        expires_at=now + timedelta(hours=ctx.settings.upload_hours),
        files=[
            ContributionFileRow(
                path=file.path,
                size=file.size,
                sha256=file.sha256,
                here=_is_here(base_files, file),
                **_where(ctx, file, sent.get(file.path)),
            )
            for file in declaration.files
        ],
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    tell(session, now, row)
    return row


def _where(ctx: Context, file: FileEntry, sent: Sent | None) -> dict[str, Any]:
    """Return the columns that tell where the bytes of a file arrive, or have arrived."""
    if sent is None:
        return {"part_bytes": uploads.part_bytes_for(ctx, file.size)}
    upload = None if sent.stored else sent.upload
    return {"part_bytes": sent.part_bytes, "upload": upload, "stored": sent.stored}


def _check_encoding(model: ModelRow, name: str) -> type[Encoding]:
    encoding = discover()[name]
    taken = policy_of(model).encodings
    if taken is not None and name not in taken:
        raise EncodingRefused(
            f"{model.name} takes no contributions in the encoding {name!r}.",
            hint=f"Use --encoding with one of these: {', '.join(taken)}.",
        )
    return encoding


def _check_files(
    ctx: Context, base_files: list[FileEntry], files: list[FileEntry], encoding: type[Encoding]
) -> list[FileEntry]:
    """Return those of `files` that the update consists of; raises what is wrong with one."""
    names = [file.path for file in files]
    needed = ", ".join(encoding.files)
    if not set(encoding.files) <= set(names):
        raise InvalidRequest(f"A contribution in the encoding {encoding.name!r} has {needed}.")
    strange = sorted({name for name in names if name not in (*encoding.files, *SIDE_FILES)})
    if strange or len(set(names)) < len(names):
        what = f"{strange[0]!r} is no part of one" if strange else "one file is named twice"
        raise InvalidRequest(
            f"A contribution is {needed} and, if you like, files such as {SIDE_FILES[0]}; {what}."
        )
    for file in files:
        check_size(base_files, file.path, file.size)
    # Twice: the parts, and the object that is made of them.
    check_room(ctx, 2 * _bytes_to_send(base_files, files))
    return [file for file in files if file.path in encoding.files]


def _digest_of(update: list[FileEntry]) -> str:
    """Return one digest of an update's files; that of its only file is the file's own."""
    if len(update) == 1:
        return update[0].sha256
    listed = sorted(f"{file.path} {file.sha256}" for file in update)
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()


def check_size(base_files: Sequence[FileEntry], path: str, size: int) -> None:
    """Raise `TooLarge` if a file is larger than any contribution to this base can have it."""
    limit = most_bytes(base_files, path)
    if size > limit:
        raise TooLarge(
            f"{path} has {size} bytes; for this base {limit} are the most.",
            hint="Send the body alone, in float32 or the base's own dtype.",
        )


def most_bytes(base_files: Sequence[FileEntry], path: str) -> int:
    """Return how many bytes a file called `path` may have in a contribution to this base."""
    weights = sum(entry.size for entry in base_files if is_weights(entry.path))
    return MAX_GROWTH * weights + MAX_HEADER_BYTES if is_weights(path) else MAX_SIDE_BYTES


def _bytes_to_send(base_files: list[FileEntry], files: list[FileEntry]) -> int:
    return sum(file.size for file in files if not _is_here(base_files, file))


def _is_here(base_files: Sequence[FileEntry], file: FileEntry) -> bool:
    """
    Return whether the base, which the contributor may read, has this very file.

    Weights are sent whatever they are: what is screened has to be the contributor's.
    """
    same = any((entry.sha256, entry.size) == (file.sha256, file.size) for entry in base_files)
    return same and not is_weights(file.path)


def check_not_contributed(
    session: Session, model: ModelRow, who: Principal, update: Sequence[FileEntry], source: str
) -> None:
    """
    Raise `AlreadyContributed` if the model has these weights already.

    Args:
        session: the transaction.
        model: which one.
        who: asks.
        update: the files that an update consists of.
        source: digest of the weights before they were encoded.
    """
    # Of those that are only declared anybody may have any number: the bytes decide.
    lost = (
        ContributionState.DECLARED,
        ContributionState.REJECTED,
        ContributionState.WITHDRAWN,
        ContributionState.EXPIRED,
    )
    row = session.scalar(
        select(ContributionRow).where(
            ContributionRow.model_id == model.id,
            or_(
                # All of them: the factors of an adapter mean nothing without its settings.
                and_(*(_has(file) for file in update)),
                # Only said, so that nobody can keep others from contributing by it.
                and_(
                    ContributionRow.weights_sha256 == source,
                    ContributionRow.contributor_id == who.contributor_id,
                ),
            ),
            or_(ContributionRow.state.not_in(lost), held()),
        )
    )
    if row is not None:
        raise already_contributed(row)


def _has(file: FileEntry) -> ColumnElement[bool]:
    """Return the condition that a contribution has the very bytes of `file` under its name."""
    return ContributionRow.id.in_(
        select(ContributionFileRow.contribution_id).where(
            ContributionFileRow.path == file.path, ContributionFileRow.sha256 == file.sha256
        )
    )


def _by_key(session: Session, who: Principal, key: str, request: str) -> ContributionRow | None:
    row = session.scalar(
        select(ContributionRow).where(
            ContributionRow.contributor_id == who.contributor_id,
            ContributionRow.idempotency_key == key,
        )
    )
    if row is not None and row.request_sha256 != request:
        raise IdempotencyMismatch(
            "This Idempotency-Key was used for another declaration.",
            hint="Use a new key for new weights.",
        )
    return row


def _under_way(session: Session, who: Principal, request: str) -> ContributionRow | None:
    """Return the caller's own upload of the same that is not finished, whatever its key."""
    return session.scalar(
        select(ContributionRow).where(
            ContributionRow.contributor_id == who.contributor_id,
            ContributionRow.request_sha256 == request,
            ContributionRow.state == ContributionState.DECLARED,
        )
    )


def _request_digest(name: str, declaration: Declaration) -> str:
    """Return the digest of what makes a declaration the same one; what is said of it may differ."""
    same = declaration.model_dump_json(include={"base", "encoding", "frozen", "files"})
    return hashlib.sha256(f"{name}\n{same}".encode()).hexdigest()
