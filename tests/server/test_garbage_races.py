"""Garbage collection beside all else: contributors, screening, fuses; and killed in the middle."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from coldfusion_server.db.tables import ContributionFileRow, ContributionRow
from coldfusion_server.services.closing import close_by_hand
from coldfusion_server.services.garbage import collect
from coldfusion_server.worker import work_once
from coldfusion_shared.contributions import ContributionState
from tests.server.backends import Backend, both_databases
from tests.server.repository import (
    MODEL,
    Repository,
    body_file,
    body_of,
    repository,
    tiny_tensors,
)
from tests.server.test_cli import Run, run
from tests.server.test_garbage import keep, named, objects, one_round
from tests.shared.checkpoints import file_bytes

__all__ = ["run"]
OTHER = "demo/other"
TURNS = 8
# In the other turns it is left to chance what comes first.
TAKEN_EVERY = 4

pytestmark = [pytest.mark.usefixtures("rejected_stay"), both_databases]


@pytest.fixture
def busy(tmp_path: Path, backend: Backend) -> Iterator[Repository]:
    """A Repository with two models of the same v0, for as many uploads as come."""
    with (
        backend.database() as url,
        repository(tmp_path / "data", url, quota_uploads=None) as opened,
    ):
        for name in (MODEL, OTHER):
            opened.model(name, min_contributions=1000)
        yield opened


def reordered(seed: int) -> bytes:
    """Return the tensors of `body_file(seed)` in another order: another file, the same update."""
    body = body_of(tiny_tensors(), seed)
    return file_bytes(dict(reversed(body.items())))


class Crowd:
    """Threads that work until they are told to stop, or one of them fails."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.errors: list[BaseException] = []
        self.threads: list[threading.Thread] = []

    def start(self, target: Any, *arguments: Any) -> threading.Thread:
        def work() -> None:
            try:
                target(*arguments)
            except BaseException as error:
                self.errors.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self.threads.append(thread)
        return thread

    def until_stopped(self, turn: Any) -> None:
        def work() -> None:
            while not self.stop.is_set():
                turn()

        self.start(work)

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(300)
            assert not thread.is_alive(), "somebody waits for ever"
        assert not self.errors, self.errors


def go_round(repo: Repository, place: int) -> None:
    """
    Let the very bytes that were rejected for one model be accepted for the other.

    So an object is garbage at one moment and needed at the next.
    """
    ann, bob, cyd = (repo.contributor(f"{name}{place}") for name in ("ann", "bob", "cyd"))
    for turn in range(TURNS):
        seed = 1000 * place + turn
        first = ann.contribute(body_file(seed))
        settled(ann, first)
        second = bob.contribute(reordered(seed))
        assert settled(bob, second) == "rejected"
        if turn % TAKEN_EVERY == 0:
            taken(repo, hashlib.sha256(reordered(seed)).hexdigest())
        third = cyd.contribute(reordered(seed), model=OTHER)
        assert settled(cyd, third) == "accepted"


def taken(repo: Repository, digest: str) -> None:
    """Wait until the collection has taken an object."""
    until = time.monotonic() + 300
    while repo.ctx.store.exists(digest):
        assert time.monotonic() < until, "it was never taken"
        time.sleep(0.01)


def settled(person: Any, contribution: str) -> str:
    """Wait until a contribution was screened, and return its state."""
    until = time.monotonic() + 300
    while (state := person.receipt(contribution)["state"]) == "completed":
        assert time.monotonic() < until, "it was never screened"
        time.sleep(0.01)
    return str(state)


def test_what_is_needed_is_there_whatever_happens_meanwhile(busy: Repository) -> None:
    repo, crowd, workers = busy, Crowd(), Crowd()
    # To this collection all that was ever stored is old: nothing is safe but what is named.
    aggressive = replace(repo.ctx, now=lambda: datetime.now(UTC) + timedelta(hours=48))
    removed: list[int] = []
    crowd.until_stopped(lambda: removed.append(collect(aggressive, "gc").total.objects))
    for name in ("w1", "w2"):
        workers.until_stopped(lambda name=name: work(repo, name))
    people = [crowd.start(go_round, repo, place) for place in range(3)]
    for person in people:
        person.join(600)
    assert not crowd.errors, crowd.errors
    workers.end()
    check_arrived(repo)

    # The fuses, too, have to do with a collection that takes what they have just stored.
    maintainer = repo.principal("max", "maintainer")
    for model in (MODEL, OTHER):
        close_by_hand(repo.ctx, model, "open", maintainer)
    until_published(repo)
    crowd.end()
    check_arrived(repo)
    assert named(repo) <= objects(repo)
    assert sum(removed) >= 3 * TURNS / TAKEN_EVERY, "it took garbage meanwhile"


def until_published(repo: Repository) -> None:
    """
    Fuse the rounds of both models.

    The clock goes on for what is to be tried again later, and only while nobody is at work: a lease
    that runs out by this clock is taken from a worker that is merely slow.
    """
    for _ in range(1000):
        if all(repo.get(f"/v1/models/{model}")["current"] == "v1" for model in (MODEL, OTHER)):
            return
        if not work_once(repo.ctx, "w3"):
            repo.clock.advance(minutes=1)
    pytest.fail(str([repo.get(f"/v1/models/{model}/rounds/1") for model in (MODEL, OTHER)]))


def work(repo: Repository, name: str) -> None:
    if not work_once(repo.ctx, name):
        time.sleep(0.005)


def check_arrived(repo: Repository) -> None:
    """Check that every file which a row says is kept is there."""
    states = (ContributionState.ACCEPTED, ContributionState.FUSED)
    query = (
        select(ContributionFileRow.sha256)
        .join(ContributionRow)
        .where(ContributionRow.state.in_(states), ~ContributionFileRow.here)
    )
    with repo.ctx.database.read() as session:
        kept = set(session.scalars(query))
    assert len(kept) == 2 * 3 * TURNS
    assert kept <= objects(repo)


# The command.


def aged(repo: Repository, hours: float = 48) -> None:
    """Make all objects old, for the clock of the machine."""
    past = time.time() - hours * 3600
    for digest in objects(repo):
        path = repo.ctx.store.local_path(digest)
        assert path is not None
        os.utime(path, (past, past))


def test_the_command_tells_what_goes_and_what_would(repo: Repository, run: Run) -> None:
    one_round(repo)
    keep(repo, 0)
    repo.ctx.store.put([b"left behind"])
    assert "Removed 0 objects (0 B) and 0 unfinished uploads" in run("gc").out
    aged(repo)
    everything = objects(repo)
    dry = run("gc", "--dry-run")
    assert "Nothing was changed. 3 objects" in dry.out and "would go" in dry.out
    assert objects(repo) == everything
    again = run("gc", "--dry-run", "--json").json()
    assert again["garbage"]["unknown"] == {"objects": 1, "bytes": 11}
    done = run("gc")
    assert done.out.splitlines()[0].split() == ["WHY", "OBJECTS", "SIZE"]
    assert "past retention  2" in done.out
    assert "Removed 3 objects" in done.out.splitlines()[-1]
    assert objects(repo) == named(repo)
    assert run("gc", "--json").json()["total"] == {"objects": 0, "bytes": 0}


def test_the_command_shows_the_use(repo: Repository, run: Run) -> None:
    repo.contributor().contribute(body_file())
    lines = run("usage").out.splitlines()
    assert lines[0].split()[:2] == ["MODEL", "BASES"]
    assert any(line.split()[:2] == ["ann", "1"] for line in lines)
    assert "In all" in lines[-1]
    assert run("usage", "--json").json()["models"][0]["kept_bytes"] == len(body_file())


def test_the_policy_is_set_by_the_command(repo: Repository, run: Run) -> None:
    def kept() -> Any:
        return repo.get(f"/v1/models/{MODEL}")["policy"]["keep_contributions"]

    assert kept() is None
    assert run("model", "policy", MODEL, "--keep-contributions", "3").code == 0
    assert kept() == 3
    assert run("model", "policy", MODEL, "--min-contributions", "4").code == 0
    assert kept() == 3
    assert run("model", "policy", MODEL, "--keep-contributions", "forever").code == 0
    assert kept() is None
    wrong = run("model", "policy", MODEL, "--keep-contributions", "many")
    assert (wrong.code, "keep_contributions" in wrong.err) == (1, True)


def test_killed_in_the_middle_it_leaves_nothing_wrong(
    repo: Repository, database_url: str | None
) -> None:
    for base in ("v0", "v1"):
        one_round(repo, base)
    keep(repo, 0)
    litter(repo)
    needed, full = named(repo), len(objects(repo))
    environment = {**os.environ, "COLDFUSION_DATA_DIR": str(repo.folder)}
    if database_url is not None:
        environment["COLDFUSION_DATABASE_URL"] = database_url
    kills = 0
    for _ in range(4):
        before = len(objects(repo))
        process = command({**environment, "COLDFUSION_LEASE_SECONDS": "1"})
        while len(objects(repo)) > before - 20 and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=300)
        if process.returncode == -signal.SIGKILL:
            kills += 1
        else:  # It was through before it could be killed.
            litter(repo)
        assert needed <= objects(repo)
        promises(repo)
        time.sleep(1.1)  # As long as the lease of the one that was killed.
    assert kills >= 1
    assert len(objects(repo)) < full
    done = command(environment)
    out, err = done.communicate(timeout=300)
    assert done.returncode == 0, err
    assert objects(repo) == needed
    with repo.ctx.database.read() as session:
        marks = session.scalars(select(ContributionFileRow.erased_at)).all()
    assert len(marks) == 4 and all(marks)
    told = [e for e in repo.get("/v1/events?limit=500") if e["type"] == "contribution.erased"]
    assert len(told) == 4, "each contribution is told of once, however often it was killed"


def litter(repo: Repository) -> None:
    """Make many objects that nobody needs; all that is there is old then."""
    for number in range(3000):
        left_behind(repo, f"by process {number}".encode())
    aged(repo)


def left_behind(repo: Repository, raw: bytes) -> None:
    """Make an object without the pains of making it last."""
    path = repo.ctx.store.local_path(hashlib.sha256(raw).hexdigest())
    assert path is not None
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(raw)


def command(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "coldfusion_server", "gc"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def promises(repo: Repository) -> None:
    """Check that no row promises bytes that are gone."""
    query = select(ContributionFileRow.sha256).where(ContributionFileRow.erased_at.is_(None))
    with repo.ctx.database.read() as session:
        assert set(session.scalars(query)) <= objects(repo)
