"""A database saved, brought back and copied: all of it, unchanged, or nothing."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import JSON, BigInteger, Boolean, Float, Integer, event, inspect, null, select, text

from coldfusion_server.db import rows, tables
from coldfusion_server.db.backup import Moved, backup, restore
from coldfusion_server.db.copy import copy
from coldfusion_server.db.database import Database
from coldfusion_server.db.migrate import check_revision, current_revision, migrate, upgrade
from coldfusion_server.events import outbox
from coldfusion_shared.errors import (
    BadBackup,
    ConfigurationError,
    Conflict,
    DatabaseUnavailable,
    DataFolderTooNew,
    InvalidRequest,
    StorageFull,
)
from tests.server import postgres as server
from tests.server.backends import Backend, both_databases, only_postgresql
from tests.server.repository import MODEL, Repository, body_file, declaration
from tests.server.test_database import greeting, start

pytestmark = both_databases

PROGRAM = Path(sys.executable).parent / "coldfusion-server"
PAIRS = [(a, b) for a in ("sqlite", "postgresql") for b in ("sqlite", "postgresql")]
TIMES = [datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), datetime(1, 1, 2, tzinfo=UTC),
         datetime(9999, 12, 30, 23, 59, 59, 999999, timezone(timedelta(hours=9)))]  # fmt: skip
FLOATS = [0.1, 5e-324, -1.7976931348623157e308]
JSONS = [{"a": [1, "ä", None, 1e-7, 2**70], "\0": "\0\ud83d\ude00"}, {}, {"z": 1, "a": -0.0}]
Make = Callable[[str], Database]


def ignored(done: int, total: int) -> None:
    pass


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Return a function that makes empty databases of either kind."""
    with ExitStack() as stack:

        def made(kind: str) -> Database:
            url = f"sqlite:///{tmp_path / os.urandom(4).hex()}.db"
            if kind == "postgresql":
                running = request.getfixturevalue("postgres")
                url = stack.enter_context(server.database(running))
            database = Database(url)
            stack.callback(database.close)
            return database

        yield made


def value_for(column: Any, n: int) -> Any:
    kind = column.type
    if column.foreign_keys:
        (key,) = column.foreign_keys
        return value_for(key.column, n)
    if isinstance(kind, JSON):
        return null() if column.nullable and n == 1 else JSONS[n]
    if column.nullable and n == 1:
        return None
    if isinstance(kind, tables.UtcDateTime):
        return TIMES[n]
    if isinstance(kind, BigInteger):
        return 2**62 + n
    if isinstance(kind, Integer):
        return 1000 + n
    if isinstance(kind, Float):
        return FLOATS[n]
    if isinstance(kind, Boolean):
        return n == 0
    if column.name == "state":
        return "open"
    return f"{n}ä💩\"\\\n'{{}}\u2028"[: kind.length]


def fill(database: Database) -> None:
    """Put three rows into every table, of all that columns can hold."""
    migrate(database)
    with database.write() as session:
        for table in tables.Table.metadata.sorted_tables:
            for n in range(3):
                values = {c.name: value_for(c, n) for c in table.columns}
                session.execute(table.insert().values(values))
        # A null of JSON's own is another one than the database's.
        session.execute(text("UPDATE rounds SET policy = 'null' WHERE id = 1002"))


def contents(database: Database) -> dict[str, list[Any]]:
    """Return all rows, the Repository's own way of reading them, and nulls told apart."""
    found: dict[str, list[Any]] = {}
    with database.read() as session:
        for table in tables.Table.metadata.sorted_tables:
            query = select(table).order_by(*table.primary_key)
            found[table.name] = sorted((tuple(row) for row in session.execute(query)), key=repr)
        nulls = text("SELECT id FROM rounds WHERE policy IS NULL ORDER BY id")
        found["without a policy"] = list(session.scalars(nulls))
    return found


def untouched(database: Database) -> None:
    """Check that nothing is there, and that nobody holds a lock."""
    assert current_revision(database) is None
    assert set(inspect(database.engine).get_table_names()) <= {"alembic_version"}
    with database.write() as session:
        session.execute(text("CREATE TABLE probe (a INTEGER)"))
        session.execute(text("DROP TABLE probe"))


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_what_was_saved_comes_back_in_either_database(
    source: str, target: str, make: Make, tmp_path: Path
) -> None:
    old, new, file = make(source), make(target), tmp_path / "saved"
    fill(old)
    told: list[tuple[int, int]] = []
    saved = backup(old, file, lambda *done: told.append(done))
    count = len(tables.Table.metadata.sorted_tables)
    assert saved.rows == {t.name: 3 for t in tables.Table.metadata.sorted_tables}
    assert told[-1] == (3 * count, 3 * count) and saved.total == 3 * count
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.glob("*saved*")] == ["saved"]
    assert restore(new, file, ignored) == saved
    assert contents(new) == contents(old)
    check_revision(new)
    with new.write() as session:
        row = tables.EventRow(type="t", model=None, at=TIMES[0], data={})
        session.add(row)
        session.flush()
        assert row.id == 1003


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_database_without_rows_counts_from_one(kind: str, make: Make, tmp_path: Path) -> None:
    old, new = make(kind), make(kind)
    migrate(old)
    backup(old, tmp_path / "saved", ignored)
    migrate(new)
    restore(new, tmp_path / "saved", ignored)
    with new.write() as session:
        row = tables.EventRow(type="t", model=None, at=TIMES[0], data={})
        session.add(row)
        session.flush()
        assert row.id == 1


def test_there_and_back_again_by_copying(make: Make) -> None:
    first, middle, last = make("sqlite"), make("postgresql"), make("sqlite")
    fill(first)
    migrate(middle)
    assert copy(first, middle, ignored).total == copy(middle, last, ignored).total > 0
    assert contents(first) == contents(middle) == contents(last)
    with middle.read() as one, last.read() as other:
        found = [rows.digests_of(session, rows.tables_of(session)) for session in (one, other)]
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_older_database_is_saved_as_it_is_and_comes_back_as_a_new_one(
    kind: str, make: Make, tmp_path: Path
) -> None:
    old, new, copied = make(kind), make(kind), make(kind)
    with old.alone() as session:
        upgrade(session.connection(), "0001")
        session.execute(
            text("INSERT INTO contributors VALUES (7, 'ann', '2026-01-02 03:04:05.000000')")
        )
    assert backup(old, tmp_path / "saved", ignored).revision == "0001"
    migrate(new)
    restore(new, tmp_path / "saved", ignored)
    copy(old, copied, ignored)
    for database in (new, copied):
        check_revision(database)
        with database.read() as session:
            row = session.scalars(select(tables.ContributorRow)).one()
            assert (row.id, row.name, row.created_at.hour) == (7, "ann", 3)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_database_with_rows_is_left_alone(kind: str, make: Make, tmp_path: Path) -> None:
    full, other = make(kind), make("sqlite")
    fill(full)
    fill(other)
    before = contents(full)
    backup(other, tmp_path / "saved", ignored)
    with pytest.raises(Conflict, match="3 in contributors"):
        restore(full, tmp_path / "saved", ignored)
    with pytest.raises(Conflict, match="not empty"):
        copy(other, full, ignored)
    with pytest.raises(InvalidRequest):
        copy(full, Database(full.url), ignored)
    assert contents(full) == before


def test_nothing_is_not_saved(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        backup(make("sqlite"), tmp_path / "saved", ignored)
    assert not list(tmp_path.glob("*saved*"))


# Files that are not what was written.


@pytest.fixture
def saved(make: Make, tmp_path: Path) -> Path:
    database = make("sqlite")
    fill(database)
    backup(database, tmp_path / "saved", ignored)
    return tmp_path / "saved"


@pytest.mark.parametrize(("kind", "places"), [("sqlite", 16), ("postgresql", 4)])
def test_a_file_that_was_cut_changes_nothing(
    kind: str, places: int, saved: Path, make: Make
) -> None:
    raw, target = saved.read_bytes(), make(kind)
    for place in range(places + 1):
        saved.write_bytes(raw[: (len(raw) - 1) * place // places])
        with pytest.raises(BadBackup):
            restore(target, saved, ignored)
    lines = gzip.decompress(raw).splitlines(keepends=True)
    for kept in range(0, len(lines), 4):
        saved.write_bytes(gzip.compress(b"".join(lines[:kept])))
        with pytest.raises(BadBackup, match="too early"):
            restore(target, saved, ignored)
    untouched(target)


def means_the_same(packed: bytes, plain: bytes) -> bool:
    """Whether only bits were changed that fill up the last byte of what is compressed."""
    try:
        return gzip.decompress(packed) == plain
    except (OSError, EOFError, zlib.error):
        return False


@pytest.mark.parametrize(("kind", "places"), [("sqlite", 20), ("postgresql", 4)])
def test_a_file_that_was_altered_changes_nothing(
    kind: str, places: int, saved: Path, make: Make
) -> None:
    raw, target = saved.read_bytes(), make(kind)
    plain = gzip.decompress(raw)
    # Behind gzip's own header, whose time and system mean nothing.
    for place in range(10, len(raw), (len(raw) - 10) // places):
        changed = bytearray(raw)
        changed[place] ^= 1 << place % 8
        if means_the_same(bytes(changed), plain):
            continue
        saved.write_bytes(changed)
        # What makes of the revision one that nobody knows looks like a newer version's backup.
        with pytest.raises((BadBackup, DataFolderTooNew)):
            restore(target, saved, ignored)
    for place in range(0, len(plain), len(plain) // places):
        changed = bytearray(plain)
        changed[place] ^= 1
        saved.write_bytes(gzip.compress(changed))
        with pytest.raises((BadBackup, DataFolderTooNew)):
            restore(target, saved, ignored)
    for more in (plain + plain, plain + b"\n", plain[: plain.rindex(b"{")] + b"{}\n"):
        saved.write_bytes(gzip.compress(more))
        with pytest.raises(BadBackup):
            restore(target, saved, ignored)
    untouched(target)


def forge(saved: Path, change: Callable[[list[Any]], None]) -> None:
    """Change a backup's lines and make its digests right again."""
    lines = [json.loads(line) for line in gzip.decompress(saved.read_bytes()).splitlines()]
    change(lines)
    digests = rows.Digests()
    for table, batch in lines[1:-1]:
        digests.add(table, batch)
    body = b"".join(rows.line(value) for value in lines[:-1])
    end = rows.line({"tables": digests.told(), "sha256": hashlib.sha256(body).hexdigest()})
    saved.write_bytes(gzip.compress(body + end))


def of_version(version: Any) -> Callable[[list[Any]], None]:
    return lambda lines: lines[0].update(version=version)


def with_value(value: Any) -> Callable[[list[Any]], None]:
    def change(lines: list[Any]) -> None:
        batch = next(batch for table, batch in lines[1:-1] if table == "contributors")
        batch[0][1] = value

    return change


def with_table(lines: list[Any]) -> None:
    lines[0]["tables"]["more"] = {"a": "integer"}


def with_stray_rows(lines: list[Any]) -> None:
    lines.insert(1, ["nowhere", [[1]]])
    lines[0]["rows"]["nowhere"] = 1


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize(
    ("change", "word"),
    [
        (of_version(2), "format 2"),
        (of_version("x"), "format x"),
        (with_value(5), "contributors"),
        (with_value(None), "contributors"),
        (with_table, "other tables"),
        (with_stray_rows, "nowhere"),
        (lambda lines: lines[0].pop("rows"), "not a backup"),
        (lambda lines: lines[0].update(format="x"), "not a backup"),
        (lambda lines: lines[0]["rows"].update(tokens=4), "not a backup"),
        (lambda lines: lines[1][1].append(lines[1][1][0]), ""),
    ],
)
def test_a_file_that_lies_changes_nothing(
    kind: str, change: Callable[[list[Any]], None], word: str, saved: Path, make: Make
) -> None:
    forge(saved, change)
    target = make(kind)
    with pytest.raises(BadBackup, match=word or None):
        restore(target, saved, ignored)
    untouched(target)


def test_a_file_of_a_newer_version_is_said(saved: Path, make: Make) -> None:
    forge(saved, lambda lines: lines[0].update(revision="9999"))
    target = make("sqlite")
    with pytest.raises(DataFolderTooNew, match="9999"):
        restore(target, saved, ignored)
    untouched(target)


def test_what_is_no_file_is_said(make: Make, tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(BadBackup, match="cannot be read"):
            restore(make("sqlite"), path, ignored)
    database = make("sqlite")
    fill(database)
    for path in (tmp_path / "no folder" / "saved", tmp_path, Path("/proc/saved")):
        with pytest.raises(InvalidRequest, match="cannot be written"):
            backup(database, path, ignored)


def test_what_postgresql_cannot_keep_is_named_and_nothing_is_copied(make: Make) -> None:
    old, new = make("sqlite"), make("postgresql")
    fill(old)
    with old.write() as session:
        session.execute(text("UPDATE leases SET holder = 'a' || char(0) || 'b'"))
    with pytest.raises(BadBackup, match="leases"):
        copy(old, new, ignored)
    untouched(new)


# Trouble in the middle.


def test_a_full_disk_leaves_the_earlier_backup(
    saved: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, before = make("sqlite"), saved.read_bytes()
    fill(database)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("coldfusion_server.db.backup_file.os.fsync", full)
    with pytest.raises(StorageFull):
        backup(database, saved, ignored)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.glob("*saved*")] == ["saved"]


def test_two_backups_to_one_file_are_not_mixed(make: Make, tmp_path: Path) -> None:
    database = make("sqlite")
    refused: list[Conflict] = []
    fill(database)

    def second(done: int, total: int) -> None:
        if not refused:
            with pytest.raises(Conflict) as caught:
                backup(database, tmp_path / "saved", ignored)
            refused.append(caught.value)

    backup(database, tmp_path / "saved", second)
    assert refused
    restore(make("sqlite"), tmp_path / "saved", ignored)


@pytest.mark.parametrize("work", ["backup", "restore", "copy"])
def test_a_database_that_goes_away_in_the_middle_is_said(
    work: str, make: Make, tmp_path: Path, saved: Path
) -> None:
    database, admin = make("postgresql"), make("postgresql")
    if work == "backup":
        fill(database)

    def cut(done: int, total: int) -> None:
        with admin.write() as session:
            session.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    f"WHERE datname = '{database.engine.url.database}'"
                )
            )

    source = make("sqlite")
    fill(source)
    path = tmp_path / "another"
    with pytest.raises(DatabaseUnavailable) as caught:
        {
            "backup": lambda: backup(database, path, cut),
            "restore": lambda: restore(database, saved, cut),
            "copy": lambda: copy(source, database, cut),
        }[work]()
    assert len(caught.value.message.splitlines()) == 1
    assert not list(tmp_path.glob("*another*"))
    if work != "backup":
        untouched(database)


# A process that is to be killed in the middle may be through before anybody looks.
ATTEMPTS = 9


def killed_amid(amid: Callable[[], bool], process: subprocess.Popen[bytes]) -> bool:
    """Kill a process as soon as `amid` holds; return false if it was through before."""
    end = time.monotonic() + 300
    try:
        while not amid():
            if process.poll() is not None:
                break
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(300)
    assert process.returncode in (0, -signal.SIGKILL)
    return process.returncode != 0


def program(*words: str | Path) -> subprocess.Popen[bytes]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([PROGRAM, "db", *words], **quiet)  # type: ignore[call-overload, no-any-return]


def busy(database: Database, admin: Database) -> Callable[[], bool]:
    """Return whether somebody is in the middle of inserting rows."""
    if database.is_sqlite:
        log = Path(f"{database.engine.url.database}-wal")
        return lambda: log.exists() and log.stat().st_size > 2**18
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO events%' "
        f"AND datname = '{database.engine.url.database}'"
    )

    def asked() -> bool:
        with admin.read() as session:
            return bool(session.scalar(query))

    return asked


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_restore_that_is_killed_leaves_nothing(kind: str, make: Make, tmp_path: Path) -> None:
    source, admin = make("sqlite"), make(kind)
    migrate(source)
    with source.write() as session:
        at = [{"type": "t", "model": None, "at": TIMES[0], "data": {"n": "x" * 200}}] * 80_000
        session.execute(tables.EventRow.__table__.insert(), at)  # type: ignore[attr-defined]
    file = tmp_path / "saved"
    backup(source, file, ignored)
    for _ in range(ATTEMPTS):
        target = make(kind)
        process = program("restore", file, "--database-url", target.url)
        if killed_amid(busy(target, admin), process):
            break
    else:
        pytest.fail("it was never killed in time")
    untouched(target)
    assert restore(target, file, ignored).total == 80_000


def test_a_backup_that_is_killed_leaves_the_earlier_one(make: Make, tmp_path: Path) -> None:
    source, file = make("sqlite"), tmp_path / "saved"
    migrate(source)
    backup(source, tmp_path / "earlier", ignored)
    before = (tmp_path / "earlier").read_bytes()
    with source.write() as session:
        at = [{"type": "t", "model": None, "at": TIMES[0], "data": {"n": n}} for n in range(60_000)]
        session.execute(tables.EventRow.__table__.insert(), at)  # type: ignore[attr-defined]
    partial = tmp_path / ".saved.partial"
    for _ in range(ATTEMPTS):
        file.write_bytes(before)
        process = program("backup", file, "--database-url", source.url)
        if killed_amid(lambda: partial.exists() and partial.stat().st_size > 2**14, process):
            break
    else:
        pytest.fail("it was never killed in time")
    assert file.read_bytes() == before and partial.stat().st_mode & 0o777 == 0o600
    assert backup(source, file, ignored).rows["events"] == 60_000
    assert not partial.exists()


# Beside a server.


def test_a_backup_of_a_database_that_is_written_to_is_one_moment(
    repo: Repository, make: Make, tmp_path: Path
) -> None:
    stop, written = threading.Event(), threading.Event()

    def write() -> None:
        while not stop.is_set():
            with repo.ctx.database.write() as session:
                for _ in range(2):
                    outbox.append(session, repo.clock(), "pair", None, {})
            written.set()

    def saved(number: int) -> Moved:
        # Whoever writes has had a turn since the one before, and goes on meanwhile.
        written.clear()
        assert written.wait(300)
        return backup(repo.ctx.database, tmp_path / f"saved{number}", ignored)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        found = [saved(number) for number in range(6)]
    finally:
        stop.set()
        thread.join()
    before = 3  # model, base and round
    assert all((moved.rows["events"] - before) % 2 == 0 for moved in found)
    assert len({moved.rows["events"] for moved in found}) > 1
    assert restore(make("sqlite"), tmp_path / "saved5", ignored) == found[5]


def test_a_database_that_somebody_uses_is_not_copied(repo: Repository, make: Make) -> None:
    repo.get("/v1/models")
    target, source = make("sqlite"), Database(repo.ctx.database.url)
    with pytest.raises(Conflict, match="in use"):
        copy(source, target, ignored)
    untouched(target)
    repo.ctx.close()
    copied = copy(source, target, ignored)
    source.close()
    assert copied.rows["models"] == 1
    assert contents(target) == contents(repo.ctx.database)


@only_postgresql
def test_a_server_that_is_about_to_leave_its_database_is_waited_for(
    repo: Repository, make: Make
) -> None:
    repo.get("/v1/models")
    target, source = make("sqlite"), Database(repo.ctx.database.url)
    # The first look finds the server's connection, which it then gives up.
    looks: list[str] = []

    def look(*told: Any) -> None:
        if "pg_stat_activity" in told[2]:
            looks.append(told[2])
            if len(looks) == 2:
                repo.ctx.close()

    event.listen(source.engine, "before_cursor_execute", look)
    assert copy(source, target, ignored).rows["models"] == 1
    assert len(looks) > 2
    source.close()


@only_postgresql
def test_a_server_that_starts_while_its_database_is_copied_stops_that(
    repo: Repository, make: Make
) -> None:
    repo.ctx.close()
    target, source = make("sqlite"), Database(repo.ctx.database.url)
    with pytest.raises(Conflict, match="in use"):
        copy(source, target, lambda done, total: repo.get("/v1/models"))
    untouched(target)
    source.close()


@only_postgresql
def test_a_server_goes_on_from_what_was_restored(
    repo: Repository, backend: Backend, tmp_path: Path
) -> None:
    for seed in (1, 2):
        repo.contributor(f"c{seed}").contribute(body_file(seed))
    repo.work()
    last = repo.get("/v1/events?limit=500")[-1]["id"]
    token = repo.token("dan")
    backup(repo.ctx.database, tmp_path / "saved", ignored)
    ids = {item["id"] for item in repo.get(f"/v1/models/{MODEL}/contributions")["items"]}
    repo.ctx.close()
    (repo.folder / "coldfusion.db").unlink(missing_ok=True)
    with backend.database() as url:
        where = url or f"sqlite:///{repo.folder / 'coldfusion.db'}"
        assert program("restore", tmp_path / "saved", "--database-url", where).wait(300) == 0
        process = start(repo.folder, url)
        try:
            address = greeting(process)[0].rsplit(" ", 1)[-1]
            with httpx.Client(base_url=address, trust_env=False, timeout=120) as http:
                bearer = {"Authorization": f"Bearer {token}", "Idempotency-Key": "12345678"}
                path = f"/v1/models/{MODEL}"
                # The round had enough: it is closed, fused and followed by the next one.
                end = time.monotonic() + 300
                while http.get(path).json()["current"] != "v1" and time.monotonic() < end:
                    time.sleep(0.05)
                body = declaration(body_file(3), "v1")
                new = http.post(f"{path}/contributions", json=body, headers=bearer)
                assert new.status_code == 201, new.text
                listed = http.get(f"{path}/contributions").json()["items"]
                told = http.get(f"/v1/events?after={last}").json()
        finally:
            process.kill()
            process.communicate()
    assert {item["id"] for item in listed} == ids | {new.json()["contribution"]["id"]}
    assert [event["id"] for event in told] == list(range(last + 1, last + 1 + len(told)))


# Values.


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(allow_nan=False),
    "boolean": st.booleans(),
    "text": st.text(st.characters(exclude_categories=["Cs"])),
    "json": st.text(st.characters(exclude_categories=["Cs"])),
    "time": st.datetimes(
        datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.timezones()
    ),
}  # fmt: skip
COLUMNS = st.sampled_from(sorted(VALUES)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.none() | VALUES[kind])
)


@given(st.lists(COLUMNS))
def test_a_row_is_one_line_and_comes_back(row: list[tuple[str, Any]]) -> None:
    encoded = [rows.encode(kind, value) for kind, value in row]
    line = rows.line(encoded)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    read = json.loads(line)
    assert rows.line(read) == line
    for (kind, value), back in zip(row, read, strict=True):
        found = rows.decode(kind, back)
        if isinstance(value, datetime):
            # In the hour that a clock has twice, times of two zones are never equal to Python.
            value = value.astimezone(UTC)
        assert found == value and type(found) is type(value)
        if isinstance(value, float):
            assert math.copysign(1, found) == math.copysign(1, value)


def test_every_column_has_a_kind(make: Make) -> None:
    database = make("sqlite")
    migrate(database)
    with database.read() as session:
        shape = rows.shape_of(rows.tables_of(session))
    assert shape == {
        table.name: {column.name: shape[table.name][column.name] for column in table.columns}
        for table in tables.Table.metadata.sorted_tables
    }


def test_a_table_of_somebody_else_is_said(make: Make, tmp_path: Path) -> None:
    database = make("postgresql")
    migrate(database)
    with database.write() as session:
        session.execute(text("CREATE TABLE theirs (a INTEGER PRIMARY KEY, b BYTEA)"))
    with pytest.raises(ConfigurationError, match="theirs"):
        backup(database, tmp_path / "saved", ignored)


def test_not_a_number_is_kept_too() -> None:
    for value in (math.inf, -math.inf):
        assert rows.decode("float", rows.encode("float", value)) == value
    assert math.isnan(rows.decode("float", rows.encode("float", math.nan)))
