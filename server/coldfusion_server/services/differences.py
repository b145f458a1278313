"""
Differences between a base and its parent, so that who has the one gets the other in fewer bytes.

They are made after a base was published, when a worker has nothing else to do, and for the newest
bases alone. They can be made again at any time, so that no manifest names them.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

import structlog
from sqlalchemy import select

from coldfusion_server.db.tables import BaseRow, DifferenceRow, ModelRow
from coldfusion_server.services import leases
from coldfusion_server.services.context import Context
from coldfusion_server.services.garbage import check_stored
from coldfusion_server.services.lookup import find_base, find_model, manifest_of
from coldfusion_server.services.references import offered_differences, refer
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.errors import FileNotInBase, LeaseLost
from coldfusion_shared.fusion.executor import threads
from coldfusion_shared.schemas.bases import DIFFERENCE_BYTES, Difference
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.weights.differences.container import Pair
from coldfusion_shared.weights.differences.write import write_difference
from coldfusion_shared.weights.layout import is_weights

log = structlog.get_logger(__name__)

# A difference that saves less is not worth the time to apply it.
WORTH = 0.9

# The old file, the new one, and the difference.
Made = tuple[FileEntry, FileEntry, FileEntry]


def make_next(ctx: Context, holder: str) -> bool:
    """Make the differences of one base that was not looked at yet; return whether there was one."""
    for base in _waiting(ctx):
        with leases.held(ctx, f"difference:{base}", holder) as lease:
            if lease is not None:
                _try(ctx, base, lease)
                return True
    return False


def list_differences(
    ctx: Context, name: str, version: str, principal: Principal | None
) -> list[Difference]:
    """Return the differences by which a base can be had from its parent; none if there are none."""
    with ctx.database.read() as session:
        row = find_base(session, find_model(session, name, principal), version)
        query = offered_differences(select(DifferenceRow)).where(DifferenceRow.base_id == row.id)
        return [
            Difference(
                path=found.path,
                old_sha256=found.old_sha256,
                new_sha256=found.new_sha256,
                size=found.size,
                sha256=found.sha256,
            )
            for found in session.scalars(query.order_by(DifferenceRow.path))
        ]


def get_difference(
    ctx: Context, name: str, version: str, sha256: str, principal: Principal | None
) -> FileEntry:
    """Return one difference as a stored file; raises `FileNotInBase` where there is none."""
    for found in list_differences(ctx, name, version, principal):
        if found.sha256 == sha256:
            return FileEntry(path=f"{found.path}.difference", size=found.size, sha256=sha256)
    raise FileNotInBase(
        f"{name} {version} has no such difference.", hint="Get the file itself, whole."
    )


def _waiting(ctx: Context) -> list[int]:
    query = (
        select(BaseRow.id)
        .join(ModelRow, ModelRow.id == BaseRow.model_id)
        .where(
            BaseRow.number > 0,
            BaseRow.number == ModelRow.current,
            BaseRow.differences_at.is_(None),
        )
    )
    with ctx.database.read() as session:
        return list(session.scalars(query))


def _try(ctx: Context, base: int, lease: leases.Lease) -> None:
    """Make them if that can be done now; nobody needs them, so there is no second try."""
    try:
        _record(ctx, base, lease, _make(ctx, base, leases.Renewal(ctx, lease)))
    except LeaseLost:
        return
    except Exception as error:
        log.warning("no differences", base=base, why=str(error))
        _record(ctx, base, lease, [])


def _record(ctx: Context, base: int, lease: leases.Lease, made: list[Made]) -> None:
    with ctx.database.write() as session:
        refer(session)
        leases.check(session, lease)
        check_stored(ctx, [stored for *_, stored in made])
        session.get_one(BaseRow, base).differences_at = ctx.now()
        session.add_all(
            DifferenceRow(
                base_id=base,
                path=new.path,
                old_sha256=old.sha256,
                new_sha256=new.sha256,
                size=stored.size,
                sha256=stored.sha256,
            )
            for old, new, stored in made
        )


def _make(ctx: Context, base: int, renewal: leases.Renewal) -> list[Made]:
    """Store the differences that are worth it: of which file, to which, and as what."""
    with ctx.database.read() as session:
        row = session.get_one(BaseRow, base)
        query = select(BaseRow).where(
            BaseRow.model_id == row.model_id, BaseRow.number == row.parent_number
        )
        parent, child = manifest_of(session.scalars(query).one()), manifest_of(row)
    before = {file.path: file for file in parent.files if is_weights(file.path)}
    pairs = [(before[file.path], file) for file in child.files if file.path in before]
    made = []
    for old, new in pairs:
        if old.sha256 != new.sha256 and new.size >= DIFFERENCE_BYTES:
            stored = _store(ctx, old, new, renewal)
            made += [(old, new, stored)] if stored else []
    return made


def _store(
    ctx: Context, old: FileEntry, new: FileEntry, renewal: leases.Renewal
) -> FileEntry | None:
    executor = threads(ctx.settings.fuse_threads or os.cpu_count() or 1)
    with ExitStack() as stack:
        before, after = ctx.store.source(old.sha256), ctx.store.source(new.sha256)
        for source in (before, after):
            stack.callback(source.close)
        writer = ctx.store.open_object()
        stack.callback(writer.abort)
        size = write_difference(before, after, Pair.of(old, new), writer.write, executor, renewal)
        if size > WORTH * new.size:
            return None
        stored = writer.commit(progress=lambda _: renewal.alive())
    return FileEntry(path=new.path, size=stored.size, sha256=stored.sha256)
