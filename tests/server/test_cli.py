"""The operator's commands: one sentence when something is wrong, and a fitting exit code."""

from __future__ import annotations

import json
import socket
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldfusion_server.__main__ import main
from tests.server.backends import only_sqlite
from tests.server.repository import MODEL, Repository, body_file, tiny_folder, tiny_tensors
from tests.shared.checkpoints import write_file


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ended]


@pytest.fixture
def run(
    tmp_path: Path,
    database_url: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Return a function that runs `coldfusion-server` with the test's data folder and database."""
    monkeypatch.setenv("COLDFUSION_DATA_DIR", str(tmp_path / "data"))
    if database_url is not None:
        monkeypatch.setenv("COLDFUSION_DATABASE_URL", database_url)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def command(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["coldfusion-server", *map(str, arguments)])
        capsys.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Ended(code, out, err)

    return command


def failed(ended: Ended, *words: str) -> None:
    """Check that the command failed with one sentence that has `words`."""
    assert ended.code == 1, (ended.out, ended.err)
    assert ended.err.startswith("Error: ")
    assert len(ended.err.strip().splitlines()) <= 2
    for word in words:
        assert word in ended.err, ended.err


def test_the_operators_whole_way(run: Run, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    assert "upgraded" in run("migrate").out
    assert run("migrate").out == "The database is up to date.\n"
    assert "no model yet" in run("model", "list").out
    created = run("model", "create", MODEL, "--from", folder, "--min-contributions", "3",
                  "--deadline", "24h", "--public", "--json")  # fmt: skip
    assert created.code == 0
    assert created.json()["policy"]["min_contributions"] == 3
    assert created.json()["policy"]["deadline_seconds"] == 86400
    assert created.json()["public"] is True
    assert MODEL in run("model", "list").out
    assert run("model", "show", MODEL, "--json").json()["current"] == "v0"
    assert "policy.method" in run("model", "show", MODEL).out

    token = run("token", "create", "ann", "--role", "contributor", "--expires", "90d")
    assert token.out.startswith("cf_") and len(token.out.split()) == 1
    assert "shown this once" in token.err
    listed = run("token", "list", "--json").json()
    assert [(row["name"], row["role"]) for row in listed] == [("ann", "contributor")]
    assert token.out.strip() not in json.dumps(listed)
    assert run("token", "revoke", "ann").out == "Revoked: 1.\n"
    assert run("token", "revoke", listed[0]["id"]).out == "Revoked: 0.\n"
    failed(run("round", "close", MODEL), "no accepted contribution")
    doctor = run("doctor", "--json")
    assert doctor.code == 0, doctor.out
    assert {finding["subject"] for finding in doctor.json()} == {
        "database", "storage", "disk", "clock"
    }  # fmt: skip


def test_a_round_is_closed_by_hand(repo: Repository, run: Run) -> None:
    repo.contributor().contribute(body_file())
    repo.work()
    closed = run("round", "close", MODEL)
    assert closed.code == 0
    assert "closed with 1" in closed.out
    failed(run("round", "close", MODEL), "no round 'open'")


def bad_folders(folder: Path) -> dict[str, tuple[Path, str]]:
    """Return folders that are no model, and a word of what is said of each."""
    made = {
        name: tiny_folder(folder / name)
        for name in ("no config", "broken config", "odd config", "list", "pickle", "code", "cut",
                     "not utf8", "deep config")
    }  # fmt: skip
    (made["no config"] / "config.json").unlink()
    (made["broken config"] / "config.json").write_text("{")
    (made["odd config"] / "config.json").write_text("{}")
    (made["list"] / "config.json").write_text("[]")
    (made["not utf8"] / "config.json").write_bytes(b'{"model_type": "\xff"}')
    (made["deep config"] / "config.json").write_text("[" * 100_000)
    (made["code"] / "config.json").write_text('{"model_type": "x", "auto_map": {"AutoModel": "x"}}')
    (made["pickle"] / "model.safetensors").rename(made["pickle"] / "pytorch_model.bin")
    raw = (made["cut"] / "model.safetensors").read_bytes()
    (made["cut"] / "model.safetensors").write_bytes(raw[:-5])
    nan = tiny_tensors()
    nan["encoder.layer.0.dense.bias"][0] = np.nan
    made["nan"] = tiny_folder(folder / "nan", nan)
    made["heads"] = tiny_folder(folder / "heads", {"classifier.weight": nan["classifier.weight"]})
    shard = tiny_folder(folder / "shard")
    (shard / "model.safetensors").unlink()
    (shard / "model.safetensors.index.json").write_text('{"weight_map": {"a": "x.safetensors"}}')
    made["shard"] = shard
    words = {
        "no config": "no config.json", "broken config": "not JSON", "odd config": "model_type",
        "list": "model_type", "pickle": "pickle", "code": "auto_map", "cut": "cut off",
        "nan": "NaN", "heads": "outside of heads", "shard": "missing", "not utf8": "not JSON",
        "deep config": "not JSON",
    }  # fmt: skip
    return {name: (path, words[name]) for name, path in made.items()}


def test_a_folder_that_is_no_model_is_said_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    run("migrate")
    for path, word in bad_folders(tmp_path / "bad").values():
        failed(run("model", "create", "demo/bad", "--from", path), word)
    assert run("model", "list", "--json").json() == []
    assert [p for p in (tmp_path / "data" / "objects").rglob("*") if p.is_file()] == []
    assert run("model", "create", "demo/bad", "--from", tiny_folder(tmp_path / "ok")).code == 0


@pytest.mark.parametrize(
    "source",
    ["nowhere", "a/b/c/d", "../nowhere", "", "~no-such-user/x", "a b", "https://example.org/x",
     "demo/nothing"],
)  # fmt: skip
def test_a_source_that_is_nowhere_is_said(source: str, run: Run) -> None:
    run("migrate")
    failed(run("model", "create", "demo/x", "--from", source))


@only_sqlite
def test_a_model_of_one_shard_keeps_the_index_that_names_it(run: Run, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    name = "model-00001-of-00001.safetensors"
    (folder / "model.safetensors").rename(folder / name)
    index = {"weight_map": dict.fromkeys(tiny_tensors(), name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    run("migrate")
    assert run("model", "create", MODEL, "--from", folder).code == 0
    connection = sqlite3.connect(tmp_path / "data" / "coldfusion.db")
    paths = {path for (path,) in connection.execute("SELECT path FROM base_files")}
    connection.close()
    assert {name, "model.safetensors.index.json"} <= paths


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["token", "create", "a b", "--role", "reader"], "name"),
        (["token", "create", "ann", "--role", "reader", "--expires", "soon"], "length of time"),
        (["token", "create", "ann", "--role", "reader", "--expires", "0d"], "length of time"),
        (["token", "create", "ann", "--role", "reader", "--expires", "999999999w"], "too long"),
        (["token", "create", "ann", "--role", "reader", "--expires", "900000w"], "too long"),
        (["token", "revoke", "nobody"], "no token"),
        (["model", "show", "demo/nothing"], "no model"),
        (["round", "close", "demo/nothing"], "no model"),
        (["settings", "--database-url", ""], ""),
        (["migrate", "--database-url", "nonsense"], "database_url"),
        (["migrate", "--database-url", "sqlite:////nowhere/at/all.db"], "database"),
        (["up", "--host", "no.such.host.invalid", "--port", "0"], "no address"),
        (["up", "--host", "x" * 300, "--port", "0"], "no address"),
        (["up", "--host", "a..b", "--port", "0"], "no address"),
        (["up", "--host", "192.0.2.1", "--port", "0"], "Cannot listen"),
        (["up", "--log-level", "loud", "--port", "0"], "log level"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(arguments: list[str], word: str, run: Run) -> None:
    run("migrate")
    if arguments[0] == "settings":
        assert run(*arguments).code in (0, 1)
    else:
        failed(run(*arguments), word)


@pytest.mark.parametrize(
    "policy",
    [["--min-contributions", "0"], ["--min-contributions", "3", "--max-contributions", "2"],
     ["--deadline", "400d"], ["--method", "magic"]],
)  # fmt: skip
def test_a_policy_that_cannot_work_is_said(policy: list[str], run: Run, tmp_path: Path) -> None:
    run("migrate")
    failed(run("model", "create", MODEL, "--from", tiny_folder(tmp_path / "m"), *policy))
    assert run("model", "list", "--json").json() == []


@pytest.mark.parametrize("name", ["tiny", "a/b/c", "../x", "a--b/c", "a/b.git", "ä/b"])
def test_a_name_that_the_hub_would_not_take_is_said(name: str, run: Run, tmp_path: Path) -> None:
    run("migrate")
    failed(run("model", "create", name, "--from", tiny_folder(tmp_path / "m")), "owner/name")


def test_a_taken_name_is_said(run: Run, tmp_path: Path) -> None:
    run("migrate")
    folder = tiny_folder(tmp_path / "m")
    assert run("model", "create", MODEL, "--from", folder).code == 0
    failed(run("model", "create", MODEL, "--from", folder), "already")


@pytest.mark.parametrize("arguments", [["nonsense"], ["up", "--port", "x"], ["up", "--port", "-1"],
                                       ["token", "create", "ann", "--role", "king"], ["model"],
                                       ["token", "create"]])  # fmt: skip
def test_wrong_usage_is_2(arguments: list[str], run: Run) -> None:
    assert run(*arguments).code == 2


def test_help_and_version_are_0(run: Run) -> None:
    for arguments in (["--help"], ["--version"], ["model", "create", "--help"], ["up", "--help"]):
        assert run(*arguments).code == 0


def test_a_command_without_a_database_says_what_to_type(run: Run) -> None:
    failed(run("model", "list"), "migrate")
    failed(run("token", "create", "ann", "--role", "reader"), "migrate")


@only_sqlite
def test_a_data_folder_of_a_newer_version_is_left_alone(run: Run, tmp_path: Path) -> None:
    run("migrate")
    file = tmp_path / "data" / "coldfusion.db"
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    for arguments in (["up", "--port", "0"], ["migrate"], ["model", "list"]):
        failed(run(*arguments), "9999", "newer")
    doctor = run("doctor")
    assert doctor.code == 1
    assert "WRONG" in doctor.out and "newer" in doctor.out
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT * FROM alembic_version").fetchall() == [("9999",)]
    connection.close()


def test_a_port_in_use_is_said(run: Run) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        failed(run("up", "--port", str(port)), str(port), "in use", "--port")


def test_a_data_folder_that_is_a_file_is_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    for arguments in (["up", "--port", "0"], ["doctor"], ["model", "list"]):
        failed(run(*arguments), "data folder")


def test_doctor_finds_what_is_wrong(run: Run, tmp_path: Path) -> None:
    run("migrate")
    assert run("doctor").code == 0
    (tmp_path / "data" / "settings.toml").write_text(f"min_free_bytes = {2**60}")
    full = run("doctor", "--json")
    assert full.code == 1
    assert {f["subject"] for f in full.json() if not f["ok"]} == {"disk"}
    (tmp_path / "data" / "settings.toml").write_text("nonsense")
    failed(run("doctor"), "settings.toml")


def test_settings_are_shown_with_secrets_masked(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLDFUSION_SECRET", "hunter2" * 6)
    url = "postgresql+psycopg://u:hunter2@h/d"
    for arguments in (["settings"], ["settings", "--json"]):
        shown = run(*arguments, "--database-url", url)
        assert shown.code == 0
        assert "hunter2" not in shown.out and "***" in shown.out


def test_a_secret_in_a_bad_setting_is_not_printed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLDFUSION_SECRET", "hunter2")
    ended = run("doctor")
    failed(ended, "secret")
    assert "hunter2" not in ended.err


def test_openapi_is_printed_as_the_app_has_it(run: Run, repo: Repository) -> None:
    printed = run("openapi").json()
    assert printed == json.loads(json.dumps(repo.app.openapi()))


def test_the_database_is_saved_brought_back_and_copied(
    run: Run, repo: Repository, tmp_path: Path
) -> None:
    file, other = tmp_path / "saved", f"sqlite:///{tmp_path / 'other.db'}"
    repo.get("/v1/models")
    failed(run("db", "copy", "--to", other), "in use", "Stop")
    saved = run("db", "backup", file)
    assert saved.code == 0 and "objects" in saved.out
    assert file.stat().st_mode & 0o777 == 0o600
    restored = run("db", "restore", file, "--database-url", other, "--json").json()
    assert restored["rows"]["models"] == 1 and restored["where"] == str(file)
    failed(run("db", "restore", file), "not empty", "models")
    repo.ctx.close()
    failed(run("db", "copy", "--to", other), "not empty")
    new = f"sqlite:///{tmp_path / 'new.db'}"
    assert "compared" in run("db", "copy", "--to", new).out
    assert MODEL in run("model", "list", "--database-url", new).out


def test_what_cannot_be_saved_or_brought_back_is_said(run: Run, tmp_path: Path) -> None:
    failed(run("db", "backup", tmp_path / "saved"), "database")
    failed(run("db", "restore", tmp_path / "nothing"), "cannot be read")
    (tmp_path / "text").write_text("not a backup")
    failed(run("db", "restore", tmp_path / "text"), "not a backup")
    failed(run("db", "copy", "--to", "nonsense"), "database_url")
    run("migrate")
    failed(run("db", "backup", tmp_path / "no folder" / "saved"), "cannot be written")
    answer = run("db", "restore", tmp_path / "text", "--json")
    assert answer.json()["error"]["code"] == "bad_backup"


def test_a_weights_file_alone_is_no_model(run: Run, tmp_path: Path) -> None:
    run("migrate")
    file = write_file(tmp_path / "w" / "model.safetensors", tiny_tensors())
    failed(run("model", "create", MODEL, "--from", file), "folder")
