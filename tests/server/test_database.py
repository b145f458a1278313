"""Transactions and connections: what a reader sees, who waits for whom, and for how long."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import func, select, text, update

from coldfusion_server.db import database as database_module
from coldfusion_server.db.database import Database
from coldfusion_server.db.tables import (
    ContributionRow,
    ContributorRow,
    ModelRow,
    RoundRow,
    TokenRow,
)
from coldfusion_server.services.closing import close_by_hand
from coldfusion_server.services.contributions import lock_round
from coldfusion_shared.errors import ConfigurationError, DatabaseUnavailable, StateConflict
from tests.server.backends import Backend, both_databases, only_postgresql
from tests.server.repository import MODEL, Repository, body_file

pytestmark = both_databases

PROGRAM = Path(sys.executable).parent / "coldfusion-server"


def add_contributor(database: Database, repo: Repository, name: str) -> None:
    with database.write() as session:
        session.add(ContributorRow(name=name, created_at=repo.clock()))


def count(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(ContributorRow)) or 0


def test_a_reader_sees_one_moment(repo: Repository) -> None:
    database = repo.ctx.database
    query = select(func.count()).select_from(ContributorRow)
    with database.read() as session:
        before = session.scalar(query)
        add_contributor(database, repo, "new")
        assert session.scalar(query) == before
    assert count(database) == (before or 0) + 1


def test_a_round_is_closed_by_hand_once(repo: Repository) -> None:
    for seed in (1, 2):
        repo.contributor().contribute(body_file(seed))
    repo.work()
    maintainer = repo.principal("max", "maintainer")

    def close(_: int) -> bool:
        try:
            close_by_hand(repo.ctx, MODEL, "1", maintainer)
        except StateConflict:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(close, range(4))) == 1


# PostgreSQL alone.


@pytest.fixture
def small(
    database_url: str, repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    """A second way to the repository's database, of two connections, and with little patience."""
    monkeypatch.setattr(database_module, "POOL_SECONDS", 0.2)
    monkeypatch.setattr(database_module, "LOCK_SECONDS", 1)
    opened = Database(database_url, pool=1, overflow=1)
    yield opened
    opened.close()


@only_postgresql
def test_the_isolation_is_ours_whatever_the_servers_default_is(repo: Repository) -> None:
    database = repo.ctx.database
    asked = text("SHOW transaction_isolation"), text("SHOW transaction_read_only")
    name = repo.ctx.database.engine.url.database
    with database.write() as session:
        session.execute(
            text(f"ALTER DATABASE {name} SET default_transaction_isolation = serializable")
        )
    database.close()
    for _ in range(2):
        with database.read() as session:
            assert [session.scalar(a) for a in asked] == ["repeatable read", "on"]
        with database.write() as session:
            assert [session.scalar(a) for a in asked] == ["read committed", "off"]


@only_postgresql
def test_a_reader_cannot_write(repo: Repository) -> None:
    with pytest.raises(DatabaseUnavailable, match="read-only"), repo.ctx.database.read() as session:
        session.execute(update(ModelRow).values(current=7))


@only_postgresql
def test_what_was_read_before_a_lock_is_read_again_behind_it(repo: Repository) -> None:
    accepted = [repo.contributor().contribute(body_file(seed)) for seed in (1, 2)]
    repo.work()
    with repo.ctx.database.write() as session:
        query = select(ContributionRow).where(ContributionRow.id == accepted[0])
        row = session.scalars(query).one()
        assert row.round.state == "open"
        close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))
        assert lock_round(session, row).state == "closed"


@only_postgresql
def test_who_gets_no_connection_is_told_so(small: Database, repo: Repository) -> None:
    with small.read() as one, small.read() as two:
        assert one.scalar(select(1)) == two.scalar(select(1)) == 1
        with pytest.raises(DatabaseUnavailable) as caught, small.read() as three:
            three.scalar(select(1))
    assert "in use" in caught.value.message and "database_pool" in (caught.value.hint or "")
    assert count(small) == count(repo.ctx.database)


@only_postgresql
def test_who_waits_too_long_for_a_lock_is_told_so(small: Database, repo: Repository) -> None:
    query = select(RoundRow).with_for_update()
    with repo.ctx.database.write() as holder:
        holder.execute(query)
        with pytest.raises(DatabaseUnavailable, match="another process"), small.write() as session:
            session.execute(query)


@only_postgresql
def test_two_in_each_others_way_are_told_so(repo: Repository) -> None:
    database, barrier = repo.ctx.database, threading.Barrier(2)
    repo.model("demo/other")

    def lock(first: int) -> str:
        try:
            with database.write() as session:
                for place in (first, 1 - first):
                    names = (MODEL, "demo/other")
                    query = select(ModelRow).where(ModelRow.name == names[place])
                    session.execute(query.with_for_update())
                    if place == first:
                        barrier.wait(100)
        except DatabaseUnavailable as error:
            return error.message
        return ""

    with ThreadPoolExecutor(2) as pool:
        said = sorted(pool.map(lock, (0, 1)))
    assert said[0] == "" and "each other's way" in said[1]


@only_postgresql
def test_a_connection_that_the_server_has_closed_is_replaced(repo: Repository) -> None:
    database = repo.ctx.database
    before = count(database)
    other = Database(database.url)
    with other.write() as session:
        session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    other.close()
    assert count(database) == before


@only_postgresql
def test_a_server_that_is_not_there_is_one_sentence(repo: Repository) -> None:
    nowhere = Database("postgresql+psycopg://nobody@127.0.0.1:9/x")
    with pytest.raises(DatabaseUnavailable) as caught:
        count(nowhere)
    assert len(caught.value.message.splitlines()) == 1 and "refused" in caught.value.message
    nowhere.close()


def test_another_kind_of_database_is_refused() -> None:
    for url in ("oracle://h/d", "mssql+pyodbc://h/d"):
        with pytest.raises(ConfigurationError, match="database_url"):
            Database(url)


# First starts.


def start(folder: Path, url: str | None) -> subprocess.Popen[str]:
    more = [] if url is None else ["--database-url", url]
    return subprocess.Popen(
        [PROGRAM, "up", "--port", "0", "--data-dir", folder, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def greeting(process: subprocess.Popen[str]) -> list[str]:
    """Return what a server says until it is up, or until it has ended."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if lines[-1].startswith("stop"):
            break
    return lines


def test_servers_that_start_for_the_first_time_at_once_all_come_up(
    backend: Backend, tmp_path: Path
) -> None:
    with backend.database() as url:
        servers = [start(tmp_path / "data", url) for _ in range(3)]
        try:
            said = [greeting(server) for server in servers]
        finally:
            for server in servers:
                server.kill()
                server.communicate()
        assert all(lines and lines[-1].startswith("stop") for lines in said), said
        shown = [line for lines in said for line in lines if line.startswith("token")]
        database = Database(url or f"sqlite:///{tmp_path / 'data' / 'coldfusion.db'}")
        with database.read() as session:
            tokens = session.scalars(select(TokenRow)).all()
        database.close()
    assert len(shown) == len(tokens) == 1
    assert tokens[0].id in shown[0]
