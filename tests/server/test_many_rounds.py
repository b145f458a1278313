"""Two schedulers and two workers race over many rounds of one model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

from sqlalchemy import func, select

from coldfusion_server.db.tables import BaseRow, ContributionRow, RoundRow
from coldfusion_server.scheduler import run_scheduler
from coldfusion_server.worker import run_worker
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.rounds import RoundState
from tests.server.repository import Repository, body_file, memory, repository

ROUNDS = 200
# Contributions that are on their way at a time; each round takes one.
AHEAD = 4
SECONDS = 900
QUICK: dict[str, Any] = {"scheduler_seconds": 0.05, "worker_seconds": 0.05, "gc_hours": 0}


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """Run a scheduler and a worker with connections of their own, as a process has."""
    stop = Event()
    with repository(folder, copied=True, **QUICK) as other:
        threads = [
            Thread(target=run, args=(other.ctx, stop)) for run in (run_scheduler, run_worker)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def published(repo: Repository) -> int:
    with repo.ctx.database.read() as session:
        return session.scalar(select(func.max(BaseRow.number))) or 0


def test_two_schedulers_and_two_workers_publish_each_round_once() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(dir=memory())))
        repo = stack.enter_context(repository(folder, **QUICK))
        repo.model(min_contributions=1, max_contributions=1, max_staleness=10_000)
        ann = repo.contributor()
        for _ in range(2):
            stack.enter_context(running(folder))
        until = time.monotonic() + SECONDS
        for seed in range(ROUNDS):
            ann.contribute(body_file(seed))
            while published(repo) < seed + 1 - AHEAD:
                assert time.monotonic() < until, f"only {published(repo)} bases"
                time.sleep(0.01)
        while published(repo) < ROUNDS:
            assert time.monotonic() < until, f"only {published(repo)} bases"
            time.sleep(0.05)
        with repo.ctx.database.read() as session:
            bases = session.execute(
                select(BaseRow.number, BaseRow.parent_number).order_by(BaseRow.number)
            ).all()
            rounds = session.execute(
                select(
                    RoundRow.number, RoundRow.state, RoundRow.result_number, RoundRow.attempts
                ).order_by(RoundRow.number)
            ).all()
            fused = session.execute(select(ContributionRow.state, ContributionRow.result_number))
            results = sorted((state, number) for state, number in fused)
    assert [tuple(row) for row in bases] == [(0, None)] + [(n + 1, n) for n in range(ROUNDS)]
    assert [(row.number, row.result_number) for row in rounds[:-1]] == [
        (n + 1, n + 1) for n in range(ROUNDS)
    ]
    assert {row.state for row in rounds[:-1]} == {RoundState.PUBLISHED}
    assert {row.attempts for row in rounds[:-1]} == {1}
    assert rounds[-1].state == RoundState.OPEN
    assert results == [(ContributionState.FUSED, n + 1) for n in range(ROUNDS)]
