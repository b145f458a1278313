"""
Garbage collection: what nothing needs, and was stored long enough ago, is removed.

First everything is looked at without a lock, which may take minutes. What seems to be garbage is
then looked at again, a few objects at a time, in transactions that keep new references out: so a
declaration of the very bytes that are about to go comes before, and they stay, or after, and they
are sent again. Who stores objects before anything names them (a fuse, a new model) is protected by
the grace period, and looks that they are there when they are named.

Where a manifest is damaged, nobody knows what it named. Then only that goes which contributions to
other models have left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

import structlog
from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributionFileRow, ContributionRow
from coldfusion_server.services import contributions, forgetting, leases, past_sign_ins, references
from coldfusion_server.services.context import Context
from coldfusion_server.services.identity import claim_store
from coldfusion_server.storage import ListedObject
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import ColdFusionError, StateConflict, StorageUnavailable
from coldfusion_shared.schemas.files import FileEntry

log = structlog.get_logger(__name__)

LEASE = "garbage"
# Declarations wait for a batch: as long as the store takes for so many, or a little more than
# these seconds.
BATCH = 50
BATCH_SECONDS = 2.0


class Reason(StrEnum):
    """Why an object is garbage."""

    RETENTION = "past retention"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    FUSE = "left by a fuse"
    UNKNOWN = "unknown"


# An object that several contributions had is counted by the first of these.
_REASONS = {
    ContributionState.FUSED: Reason.RETENTION,
    ContributionState.REJECTED: Reason.REJECTED,
    ContributionState.WITHDRAWN: Reason.WITHDRAWN,
    ContributionState.EXPIRED: Reason.EXPIRED,
}


@dataclass
class Heap:
    """Some objects and their size in bytes."""

    objects: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """Count one more."""
        self.objects += 1
        self.bytes += size


@dataclass
class Collected:
    """
    What a collection did, or would do.

    Attributes:
        dry_run: whether nothing was changed.
        kept: what is needed.
        young: what is not needed, but was stored within the grace period.
        garbage: what went, or would go.
        uploads: unfinished uploads that nothing waited for.
        erased: contributions to published bases whose bytes were given up.
        sign_ins: those that are past.
        events: those that are past.
        deliveries: to webhooks, those that are past.
        damaged: a sentence on each manifest that was not to be gone by.
    """

    dry_run: bool
    kept: Heap = field(default_factory=Heap)
    young: Heap = field(default_factory=Heap)
    garbage: dict[Reason, Heap] = field(default_factory=dict)
    uploads: int = 0
    erased: int = 0
    sign_ins: int = 0
    events: int = 0
    deliveries: int = 0
    damaged: list[str] = field(default_factory=list)

    @property
    def total(self) -> Heap:
        """All garbage together."""
        heaps = self.garbage.values()
        return Heap(sum(heap.objects for heap in heaps), sum(heap.bytes for heap in heaps))


@dataclass(frozen=True)
class _Doomed:
    object: ListedObject
    reason: Reason


def collect(
    ctx: Context,
    holder: str,
    *,
    dry_run: bool = False,
    progress: Callable[[ListedObject], None] = lambda listed: None,
) -> Collected:
    """
    Remove what nothing needs any more.

    It may be killed at any point and run again.

    Args:
        ctx: the service's surroundings.
        holder: who does it, for the lease.
        dry_run: only say what would go.
        progress: called with each object that was listed.

    Raises:
        StateConflict: another process is at it.
        ConfigurationError: the store is another Repository's.
    """
    claim_store(ctx)
    if dry_run:
        return _Collection(ctx, None, progress).run()
    with leases.held(ctx, LEASE, holder) as lease:
        if lease is None:
            raise StateConflict(
                "Another process is collecting garbage at this moment.",
                hint="Wait until it is done, or look with --dry-run.",
            )
        return _Collection(ctx, lease, progress).run()


def check_stored(ctx: Context, files: Sequence[FileEntry]) -> None:
    """
    Check that objects which were stored before anything named them are there, now that it does.

    Raises:
        StorageUnavailable: one was taken for garbage.
    """
    for file in files:
        if not ctx.store.exists(file.sha256):
            raise StorageUnavailable(
                f"{file.path} was stored and is gone again.",
                hint="If storing took longer than gc_grace_hours, raise that setting; then try "
                "again.",
            )


@contextmanager
def later_if_away(row: ContributionRow) -> Iterator[None]:
    """Let what the block cannot remove, because the store is away, be left to a collection."""
    try:
        yield
    except ColdFusionError as error:
        log.warning("bytes stay for now", contribution=row.id, why=error.message)


def remove_rejected(ctx: Context, row: ContributionRow) -> None:
    """
    Remove a rejected or erased contribution's objects at once, unless something else needs them.

    Those of given up candidates that it is part of go, too: of one contribution alone a candidate
    is the very same weights. Otherwise whoever sends what is rejected could fill the store, past
    any quota. Who has stored the same bytes and not named them yet finds out when he does
    (`check_stored`).
    """
    digests = {file.sha256 for file in row.files if not file.here}
    with ctx.database.write() as session:
        references.exclude(session)
        digests |= references.given_up_with(session, row)
        gone = _remove_unneeded(ctx, session, digests)
        for holder in _holders(session, gone):
            for file in holder.files:
                if file.sha256 in gone and file.erased_at is None:
                    file.erased_at = ctx.now()


def remove_staged(ctx: Context, digests: Sequence[str]) -> None:
    """Remove objects that were stored for a declaration that never came, unless needed."""
    with ctx.database.write() as session:
        references.exclude(session)
        _remove_unneeded(ctx, session, set(digests))


def _remove_unneeded(ctx: Context, session: Session, digests: set[str]) -> set[str]:
    """Remove those of `digests` that nothing needs, inside the lock, and return them."""
    is_needed = _asked(session, references.Manifests(), sorted(digests))
    gone = {digest for digest in digests if not is_needed(digest)}
    for digest in gone:
        ctx.store.delete(digest)
    return gone


class _Collection:
    """One run; without a lease it changes nothing."""

    def __init__(
        self, ctx: Context, lease: leases.Lease | None, progress: Callable[[ListedObject], None]
    ) -> None:
        self.ctx = ctx
        self.lease = lease
        self.progress = progress
        self.manifests = references.Manifests()
        self.result = Collected(dry_run=lease is None)
        self.before = ctx.now() - timedelta(hours=ctx.settings.gc_grace_hours)
        self.alive = ctx.pulse if lease is None else leases.Renewal(ctx, lease).alive

    def run(self) -> Collected:
        waiting = self._find()
        if self.lease is None:
            for item in waiting:
                self._count(item)
            self.result.uploads = len(contributions.abandoned_uploads(self.ctx))
            self.result.sign_ins = past_sign_ins.count(self.ctx)
            self.result.events = forgetting.count_events(self.ctx)
            self.result.deliveries = forgetting.count_deliveries(self.ctx)
            return self.result
        while waiting:
            self.alive()
            self._mark(self.lease, waiting[:BATCH])
            del waiting[: self._remove(self.lease, waiting[:BATCH])]
        self.result.uploads = contributions.sweep_uploads(self.ctx)
        self.result.sign_ins = past_sign_ins.remove(self.ctx)
        self.result.events = forgetting.remove_events(self.ctx)
        self.result.deliveries = forgetting.remove_deliveries(self.ctx)
        self.ctx.store.clean()
        return self.result

    def _find(self) -> list[_Doomed]:
        """List the store and return what seems to be garbage."""
        with self.ctx.database.read() as session:
            is_needed = _asked(session, self.manifests)
            self.result.damaged = [one.sentence for one in self.manifests.damaged]
            reasons = _reasons(session)
        doomed = []
        for listed in self.ctx.store.objects():
            self.alive()
            self.progress(listed)
            if is_needed(listed.sha256):
                self.result.kept.add(listed.size)
            elif listed.stored_at > self.before:
                self.result.young.add(listed.size)
            else:
                reason = reasons.get(listed.sha256, Reason.UNKNOWN)
                doomed.append(_Doomed(listed, reason))
        return doomed

    def _mark(self, lease: leases.Lease, batch: Sequence[_Doomed]) -> None:
        """
        Write down whose bytes are about to go.

        In a transaction of its own, before: whoever is killed between the two leaves objects that
        nothing needs, which the next run finds. The other way round rows would promise bytes that
        are gone.
        """
        with self.ctx.database.write() as session:
            self._lock(session, lease)
            digests = {item.object.sha256 for item in self._garbage(session, batch)}
            for row in _holders(session, digests):
                self._give_up(session, row, digests)

    def _give_up(self, session: Session, row: ContributionRow, digests: set[str]) -> None:
        first = all(file.erased_at is None for file in row.files)
        for file in row.files:
            if file.sha256 in digests and file.erased_at is None:
                file.erased_at = self.ctx.now()
        if first and (row.state == ContributionState.FUSED or row.result_number is not None):
            self.result.erased += 1
            contributions.tell(session, self.ctx.now(), row, "erased")

    def _remove(self, lease: leases.Lease, batch: Sequence[_Doomed]) -> int:
        """Remove garbage among `batch`, inside the lock; return how much of it was looked at."""
        with self.ctx.database.write() as session:
            self._lock(session, lease)
            garbage = set(self._garbage(session, batch))
            end = time.monotonic() + BATCH_SECONDS
            for done, item in enumerate(batch):
                if done and time.monotonic() > end:
                    return done
                if item in garbage and self._is_old(item):
                    self.ctx.store.delete(item.object.sha256)
                    self._count(item)
        return len(batch)

    def _is_old(self, item: _Doomed) -> bool:
        """Return whether nobody has stored the object once more since it was listed."""
        stored_at = self.ctx.store.stored_at(item.object.sha256)
        return stored_at is not None and stored_at <= self.before

    def _garbage(self, session: Session, batch: Sequence[_Doomed]) -> list[_Doomed]:
        """Return what of `batch` is garbage still."""
        is_needed = _asked(session, self.manifests, [item.object.sha256 for item in batch])
        return [item for item in batch if not is_needed(item.object.sha256)]

    def _lock(self, session: Session, lease: leases.Lease) -> None:
        references.exclude(session)
        leases.check(session, lease)

    def _count(self, item: _Doomed) -> None:
        self.result.garbage.setdefault(item.reason, Heap()).add(item.object.size)


def _asked(
    session: Session, manifests: references.Manifests, among: Sequence[str] | None = None
) -> Callable[[str], bool]:
    """Return what tells of a digest, of any or of one in `among`, whether it may be needed."""
    needed = manifests.look(session) | _needed(session, among)
    if not manifests.damaged:
        return needed.__contains__
    models = {one.model for one in manifests.damaged}
    others = references.contributed_elsewhere(session, models) - needed
    return lambda digest: digest not in others


def _needed(session: Session, among: Sequence[str] | None = None) -> set[str]:
    """Return the digests that contributions need, or will, of all or of those in `among`."""
    query = references.stored_files(select(ContributionFileRow.sha256)).where(
        references.needed_files(session)
    )
    if among is not None:
        query = query.where(ContributionFileRow.sha256.in_(among))
    # First what is not declared yet: what is declared in between is found in the second.
    staged = references.staged_objects(session, among)
    return staged | set(session.scalars(query.distinct()))


def _reasons(session: Session) -> dict[str, Reason]:
    """Return why an object is garbage, if it is."""
    found = dict.fromkeys(references.given_up_candidates(session), Reason.FUSE)
    for state in reversed(_REASONS):
        query = references.stored_files(select(ContributionFileRow.sha256)).where(
            ContributionRow.state == state
        )
        found |= dict.fromkeys(session.scalars(query), _REASONS[state])
    return found


def _holders(session: Session, digests: set[str]) -> Sequence[ContributionRow]:
    """Return the contributions that have files of these digests and are not marked so."""
    marked = and_(
        ContributionFileRow.sha256.in_(digests),
        ~ContributionFileRow.here,
        ContributionFileRow.erased_at.is_(None),
    )
    query = select(ContributionRow).where(ContributionRow.files.any(marked))
    return session.scalars(query.order_by(ContributionRow.number)).all()
