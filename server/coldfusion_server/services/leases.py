"""
Leases: who works on what. Only the holder of a live lease may write what its work led to.

A worker that was paused past its lease cannot know that it was; so each write checks the fencing
number, which grows whenever a lease changes hands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from threading import Lock

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from coldfusion_server import tracing
from coldfusion_server.db.tables import LeaseRow
from coldfusion_server.services.context import Context
from coldfusion_shared.errors import LeaseLost


@dataclass(frozen=True)
class Lease:
    """The right to work on `key`."""

    key: str
    holder: str
    fencing: int


def acquire(ctx: Context, key: str, holder: str) -> Lease | None:
    """Take the lease of `key` for `settings.lease_seconds`; null if another holds it."""
    now = ctx.now()
    expires_at = now + timedelta(seconds=ctx.settings.lease_seconds)
    try:
        with ctx.database.write() as session:
            row = session.scalar(select(LeaseRow).where(LeaseRow.key == key).with_for_update())
            if row is None:
                session.add(LeaseRow(key=key, holder=holder, fencing=1, expires_at=expires_at))
                return Lease(key, holder, 1)
            if row.expires_at > now:
                return None
            row.holder, row.fencing, row.expires_at = holder, row.fencing + 1, expires_at
            return Lease(key, holder, row.fencing)
    except IntegrityError:
        return None  # Two asked for a lease that nobody ever had; the other one got it.


def renew(ctx: Context, session: Session, lease: Lease) -> None:
    """Hold the lease for another `settings.lease_seconds`; raises `LeaseLost`."""
    check(session, lease)
    expires_at = ctx.now() + timedelta(seconds=ctx.settings.lease_seconds)
    session.execute(update(LeaseRow).where(LeaseRow.key == lease.key).values(expires_at=expires_at))


def check(session: Session, lease: Lease) -> None:
    """Raise `LeaseLost` unless `lease` still holds; locks it until the transaction ends."""
    row = session.scalar(select(LeaseRow).where(LeaseRow.key == lease.key).with_for_update())
    if row is None or (row.holder, row.fencing) != (lease.holder, lease.fencing):
        raise LeaseLost(f"Another worker has taken over {lease.key}.")


def release(ctx: Context, lease: Lease) -> None:
    """Give the lease back; the fencing number stays, so that it keeps growing."""
    with ctx.database.write() as session:
        session.execute(
            update(LeaseRow)
            .where(
                LeaseRow.key == lease.key,
                LeaseRow.holder == lease.holder,
                LeaseRow.fencing == lease.fencing,
            )
            .values(expires_at=ctx.now())
        )


@contextmanager
def held(ctx: Context, key: str, holder: str) -> Iterator[Lease | None]:
    """Hold the lease of `key` inside the block; null if another holds it."""
    lease = acquire(ctx, key, holder)
    try:
        yield lease
    finally:
        if lease is not None:
            release(ctx, lease)


class Renewal:
    """Called by work as it goes on: renews the lease in time, and ends the work when it is lost."""

    def __init__(
        self,
        ctx: Context,
        lease: Lease,
        report: Callable[[Session, int], None] = lambda session, done: None,
    ) -> None:
        """
        Begin at nothing done.

        Args:
            ctx: the service's surroundings.
            lease: what to renew.
            report: called in the transaction of each renewal, with the bytes done so far.
        """
        self.ctx = ctx
        self.lease = lease
        self.report = report
        self.done = 0
        self.next = ctx.now()
        self._lock = Lock()

    def __call__(self, done: int) -> None:
        """Count `done` more bytes, by one thread alone, and do as `alive`."""
        self.done += done
        self.alive()

    def alive(self) -> None:
        """Renew the lease if it is time; raises `LeaseLost` once another worker has taken over."""
        self.ctx.pulse()
        # One thread renews, and the others need not wait for it.
        if self.ctx.now() < self.next or not self._lock.acquire(blocking=False):
            return
        try:
            self._renew()
        finally:
            self._lock.release()

    def _renew(self) -> None:
        seconds = min(1.0, self.ctx.settings.lease_seconds / 4)
        self.next = self.ctx.now() + timedelta(seconds=seconds)
        with tracing.hushed(), self.ctx.database.write() as session:
            renew(self.ctx, session, self.lease)
            self.report(session, self.done)
