"""Whether all is well, and what is said when it is not."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from coldfusion_server.db import database as database_module
from coldfusion_server.db.database import Database
from coldfusion_server.services.context import open_context
from coldfusion_server.services.health import examine
from coldfusion_server.settings import Settings, load_settings
from coldfusion_shared.errors import ConfigurationError, DatabaseUnavailable
from tests.server.backends import only_sqlite
from tests.server.repository import Repository, repository

GARBAGE = b"this is no database" * 1000


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "SQLITE_BUSY_SECONDS", 0.1)


def wrong(repo: Repository) -> dict[str, str]:
    return {finding.subject: finding.message for finding in examine(repo.ctx) if not finding.ok}


def not_ready(repo: Repository) -> None:
    answer = repo.client().get("/readyz")
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "retry-after" in answer.headers
    assert repo.client().get("/healthz").status_code == 200


def test_a_server_that_works_is_ready(repo: Repository) -> None:
    assert repo.get("/readyz") == {"status": "ok"}
    assert repo.get("/healthz") == {"status": "ok"}
    # The tests' clock stands in another month than the database's.
    assert set(wrong(repo)) <= {"clock"}


@only_sqlite
def test_a_lost_database_is_not_ready(repo: Repository) -> None:
    repo.get("/readyz")
    for path in repo.folder.glob("coldfusion.db*"):
        path.unlink()
    not_ready(repo)
    repo.ctx.database.close()
    not_ready(repo)


@only_sqlite
def test_a_database_that_another_holds_is_not_ready(repo: Repository) -> None:
    other = sqlite3.connect(repo.folder / "coldfusion.db", isolation_level=None)
    repo.ctx.database.close()
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    not_ready(repo)
    assert repo.client(None).get("/v1/models").status_code == 503
    assert "database" in wrong(repo)
    other.close()
    assert repo.get("/readyz") == {"status": "ok"}


@only_sqlite
def test_a_writer_that_waits_too_long_gets_503_and_readers_none(repo: Repository) -> None:
    token = repo.token()
    other = sqlite3.connect(repo.folder / "coldfusion.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with repository(repo.folder) as second:
        assert second.client(token).get("/v1/models").status_code == 200
        plan = second.client(token).post(
            "/v1/models/demo/tiny/bases/v0/evaluations", json={"suite": "s"}
        )
        assert plan.status_code == 422
        with pytest.raises(DatabaseUnavailable):
            second.token("bob")
    other.close()


@only_sqlite
def test_a_broken_database_file_is_said(repo: Repository) -> None:
    repo.ctx.database.close()
    for path in repo.folder.glob("coldfusion.db*"):
        path.unlink()
    (repo.folder / "coldfusion.db").write_bytes(GARBAGE)
    not_ready(repo)
    assert "database" in wrong(repo)


def test_a_lost_store_is_not_ready(repo: Repository) -> None:
    (repo.folder / "tmp").rename(repo.folder / "elsewhere")
    assert "storage" in wrong(repo)


def test_too_little_room_is_said(tmp_path: Path) -> None:
    with repository(tmp_path / "data", min_free_bytes=2**60) as repo:
        assert "reserve" in wrong(repo)["disk"]


def test_a_database_without_tables_is_said(tmp_path: Path) -> None:
    context = open_context(Settings(data_dir=tmp_path / "data"))
    findings = {finding.subject: finding for finding in examine(context)}
    context.close()
    assert not findings["database"].ok
    assert "migrate" in (findings["database"].hint or "")
    assert findings["storage"].ok


def test_a_clock_that_went_back_is_said(repo: Repository) -> None:
    assert "event" not in wrong(repo).get("clock", "")
    repo.clock.now -= timedelta(hours=1)
    assert "newest event" in wrong(repo)["clock"]


def test_errors_of_the_database_are_ours_and_broken_constraints_stay(tmp_path: Path) -> None:
    from sqlalchemy import text

    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    with pytest.raises(DatabaseUnavailable), database.read() as session:
        session.execute(text("SELECT * FROM nothing"))
    with database.write() as session:
        session.execute(text("CREATE TABLE t (a INTEGER UNIQUE)"))
        session.execute(text("INSERT INTO t VALUES (1)"))
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(text("INSERT INTO t VALUES (1)"))
    with pytest.raises(ZeroDivisionError), database.write() as session:
        session.execute(text("INSERT INTO t VALUES (2)"))
        raise ZeroDivisionError
    with database.read() as session:
        assert session.execute(text("SELECT count(*) FROM t")).scalar() == 1
    database.close()


# Settings and the context.


def test_flags_win_over_the_file_and_the_file_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLDFUSION_PORT", "1")
    monkeypatch.setenv("COLDFUSION_HOST", "environment")
    monkeypatch.setenv("COLDFUSION_LOG_LEVEL", "debug")
    (tmp_path / "settings.toml").write_text('port = 2\nhost = "file"\n')
    settings = load_settings(data_dir=tmp_path, port=3, host=None)
    assert (settings.port, settings.host, settings.log_level) == (3, "file", "debug")
    monkeypatch.setenv("COLDFUSION_DATA_DIR", str(tmp_path))
    assert load_settings().port == 2


def test_secrets_are_masked_wherever_settings_are_shown(tmp_path: Path) -> None:
    settings = load_settings(
        data_dir=tmp_path, database_url="postgresql://u:hunter2@h/d", secret="hunter2" * 8
    )
    for text in (repr(settings), str(settings), settings.model_dump_json()):
        assert "hunter2" not in text
    assert settings.database == "postgresql://u:hunter2@h/d"


@pytest.mark.parametrize(
    ("file", "named"),
    [("port = 99999", "port"), ("port = 'x'", "port"), ("nonsense", "settings.toml"),
     ("part_bytes = 1", "part_bytes"), ("lease_seconds = 0", "lease_seconds"),
     ("port = 1\nport = 2", "settings.toml"), ('secret = ""', "secret"),
     ("upload_hours = nan", "upload_hours")],
)  # fmt: skip
def test_a_setting_that_cannot_be_used_is_named(file: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(file)
    with pytest.raises(ConfigurationError, match=named):
        load_settings(data_dir=tmp_path)


def test_an_empty_variable_is_one_that_is_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLDFUSION_SECRET", "")
    monkeypatch.setenv("COLDFUSION_PORT", "")
    settings = load_settings(data_dir=tmp_path)
    assert (settings.secret, settings.port) == (None, 8000)
    # An empty key would let everybody sign.
    context = open_context(settings)
    assert len(context.secret) == 32
    context.close()


def test_an_empty_secret_would_let_everybody_sign(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="secret"):
        load_settings(data_dir=tmp_path, secret="")


def test_the_secret_is_made_once_and_kept_to_its_owner(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    secrets = set()
    for _ in range(2):
        context = open_context(settings)
        secrets.add(context.secret)
        context.close()
    (secret,) = secrets
    assert len(secret) == 32
    assert (tmp_path / "data" / "secret.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "data").glob("secret*")] == ["secret.key"]


@pytest.mark.parametrize("content", ["", "\n", "zz", "abc", "00" * 8, "ä"])
def test_a_broken_secret_is_said_and_never_signed_with(content: str, tmp_path: Path) -> None:
    (tmp_path / "secret.key").write_text(content)
    with pytest.raises(ConfigurationError, match=r"secret\.key"):
        open_context(Settings(data_dir=tmp_path))


@pytest.mark.parametrize("url", ["nonsense", "", "sqlite", "mysql://h/d", "postgres://h/d", "://"])
def test_a_database_url_that_cannot_be_used_is_said(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="database"):
        open_context(load_settings(data_dir=tmp_path, database_url=url))


def test_a_data_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        open_context(Settings(data_dir=tmp_path / "file"))
