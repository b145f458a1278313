"""The operator's commands: one sentence when something is wrong, and a fitting exit code."""

from __future__ import annotations

import json
import socket
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import BaseModel

from coldfusion_server.__main__ import main
from coldfusion_server.cli.policy_options import OPTIONS
from coldfusion_shared.schemas.gates import Gate
from coldfusion_shared.schemas.models import Policy
from tests.server.backends import both_databases, only_sqlite
from tests.server.repository import MODEL, Repository, body_file, tiny_folder, tiny_tensors
from tests.shared.checkpoints import write_file


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.out, self.err
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


@both_databases
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
    failed(run("round", "close", MODEL, "1"), "no accepted contribution")
    doctor = run("doctor", "--json")
    assert doctor.code == 0, doctor.out
    assert {finding["subject"] for finding in doctor.json()} == {
        "database", "storage", "disk", "clock", "key"
    }  # fmt: skip


def test_a_round_is_closed_by_hand(repo: Repository, run: Run) -> None:
    repo.contributor().contribute(body_file())
    repo.work()
    failed(run("round", "close", MODEL), "round 1", "is open", f"round close {MODEL} 1")
    closed = run("round", "close", MODEL, "1")
    assert closed.code == 0
    assert "closed with 1 contribution; a" in closed.out
    failed(run("round", "close", MODEL), "round 1 is closed", "opens when it has ended")
    failed(run("round", "close", MODEL, "1"), "not open")


def test_what_a_closing_did_not_take_is_not_counted(empty: Repository, run: Run) -> None:
    empty.model(by_hand=True, max_per_contributor=1)
    for seed in (1, 2):
        empty.contributor().contribute(body_file(seed))
    empty.work()
    closed = run("round", "close", MODEL, "1")
    assert "closed with 1 contribution, 1 is kept for the next one;" in closed.out


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


@pytest.mark.usefixtures("empty")
@only_sqlite
def test_a_folder_that_is_no_model_is_said_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    for path, word in bad_folders(tmp_path / "bad").values():
        failed(run("model", "create", "demo/bad", "--from", path), word)
    assert run("model", "list", "--json").json() == []
    assert [p for p in (tmp_path / "data" / "objects").rglob("*") if p.is_file()] == []
    assert run("model", "create", "demo/bad", "--from", tiny_folder(tmp_path / "ok")).code == 0


@pytest.mark.usefixtures("empty")
@only_sqlite
@pytest.mark.parametrize(
    "source",
    ["nowhere", "a/b/c/d", "../nowhere", "", "~no-such-user/x", "a b", "https://example.org/x",
     "demo/nothing"],
)  # fmt: skip
def test_a_source_that_is_nowhere_is_said(source: str, run: Run) -> None:
    failed(run("model", "create", "demo/x", "--from", source))


@pytest.mark.usefixtures("empty")
@only_sqlite
def test_a_model_of_one_shard_keeps_the_index_that_names_it(run: Run, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    name = "model-00001-of-00001.safetensors"
    (folder / "model.safetensors").rename(folder / name)
    index = {"weight_map": dict.fromkeys(tiny_tensors(), name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert run("model", "create", MODEL, "--from", folder).code == 0
    connection = sqlite3.connect(tmp_path / "data" / "coldfusion.db")
    paths = {path for (path,) in connection.execute("SELECT path FROM base_files")}
    connection.close()
    assert {name, "model.safetensors.index.json"} <= paths


@pytest.mark.usefixtures("empty")
@only_sqlite
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
    if arguments[0] == "settings":
        assert run(*arguments).code in (0, 1)
    else:
        failed(run(*arguments), word)


@pytest.mark.usefixtures("empty")
@only_sqlite
@pytest.mark.parametrize(
    "policy",
    [["--min-contributions", "0"], ["--min-contributions", "3", "--max-contributions", "2"],
     ["--deadline", "400d"], ["--method", "magic"]],
)  # fmt: skip
def test_a_policy_that_cannot_work_is_said(policy: list[str], run: Run, tmp_path: Path) -> None:
    failed(run("model", "create", MODEL, "--from", tiny_folder(tmp_path / "m"), *policy))
    assert run("model", "list", "--json").json() == []


@pytest.mark.usefixtures("empty")
def test_every_field_of_a_policy_has_its_option(run: Run, tmp_path: Path) -> None:
    made = run("model", "create", MODEL, "--from", tiny_folder(tmp_path / "m"), "--by-hand",
        "--max-per-contributor", "2", "--max-share-per-task", "0.5", "--min-contributors", "2",
        "--contributor-weight", "ann=2.5", "--contributor-weight", "bob=0", "--max-staleness", "7",
        "--after-rollback", "refuse", "--step-cap", "0.1", "--staleness-exponent", "1",
        "--method", "weighted_mean", "--gate", "norm", "--gate-max-relative-norm", "0.2",
        "--json")  # fmt: skip
    before = made.json()["policy"]
    told = {
        "by_hand": True, "max_per_contributor": 2, "max_share_per_task": 0.5, "step_cap": 0.1,
        "min_contributors": 2, "contributor_weights": {"ann": 2.5, "bob": 0.0}, "max_staleness": 7,
        "after_rollback": "refuse", "staleness_exponent": 1.0,
    }  # fmt: skip
    assert told.items() <= before.items()
    assert (before["gate"]["kind"], before["gate"]["max_relative_norm"]) == ("norm", 0.2)
    after = run("model", "policy", MODEL, "--max-per-contributor", "none", "--by-policy",
                "--contributor-weight", "none", "--deadline", "2h", "--json")  # fmt: skip
    changed: Any = {"max_per_contributor": None, "by_hand": False, "contributor_weights": {}}
    assert after.json()["policy"] == before | changed | {"deadline_seconds": 7200}
    again = run("model", "policy", MODEL, "--dare", "0.5", "--dare-seed", "7", "--server-lr-cap",
                "2", "--json").json()["policy"]  # fmt: skip
    assert (again["dare"], again["server_lr_cap"]) == ({"density": 0.5, "seed": 7}, 2.0)
    again = run("model", "policy", MODEL, "--dare", "0.25", "--json").json()["policy"]
    assert again["dare"] == {"density": 0.25, "seed": 7}
    again = run("model", "policy", MODEL, "--dare", "none", "--json").json()["policy"]
    assert again["dare"] is None
    failed(run("model", "policy", MODEL, "--dare-seed", "7"), "dare.density")
    run("model", "policy", MODEL, "--gate", "none", "--deadline", "none")
    last = run("model", "show", MODEL, "--json").json()["policy"]
    assert (last["gate"], last["deadline_seconds"]) == (Gate().model_dump(), None)


def test_parameters_of_screening_are_set_one_by_one(run: Run, tmp_path: Path) -> None:
    run("migrate")
    folder = tiny_folder(tmp_path / "m")
    made = run("model", "create", MODEL, "--from", folder, "--screening", "norm.action=reject",
               "--screening", "direction.enabled=false", "--json")  # fmt: skip
    before = {"norm": {"action": "reject"}, "direction": {"enabled": False}}
    assert made.json()["policy"]["screening"] == before

    def set_to(*values: str) -> Any:
        options = [word for value in values for word in ("--screening", value)]
        return run("model", "policy", MODEL, *options, "--json").json()["policy"]["screening"]

    assert set_to("norm.factor=9.5") == before | {"norm": {"action": "reject", "factor": 9.5}}
    left = {"norm": {"factor": 9.5}}
    assert set_to("norm.action=default", "direction.enabled=default") == left
    shown = run("model", "show", MODEL).out
    assert "policy.screening" in shown and "9.5" in shown
    assert set_to("none") == {}


def test_a_public_model_is_robust_unless_its_maker_says_otherwise(run: Run, tmp_path: Path) -> None:
    run("migrate")
    folder = tiny_folder(tmp_path / "m")

    def method(name: str, *options: str) -> Any:
        made = run("model", "create", name, "--from", folder, *options, "--json")
        return made.json()["policy"]["method"]

    assert method("a/private") == "mean"
    assert method("a/public", "--public") == "norm_clipped_mean"
    assert method("a/other", "--public", "--method", "mean") == "mean"


def test_checks_are_listed_as_they_can_be_typed(run: Run) -> None:
    listed = run("checks")
    assert "--screening norm.action=" in listed.out and "finite:" in listed.out
    (one,) = run("checks", "norm", "--json").json()
    defaults = {parameter["name"]: parameter["default"] for parameter in one["parameters"]}
    assert (one["name"], defaults["enabled"]) == ("norm", True)
    failed(run("checks", "magic"), "magic")


# By field: why it cannot be set on the command line.
WITHOUT_OPTION: dict[str, str] = {}


def fields_of(schema: type[BaseModel]) -> set[str]:
    """Return the names of all fields, those of parts as `gate.suite`."""
    found = set()
    for name, field in schema.model_fields.items():
        kinds = [field.annotation, *get_args(field.annotation)]
        parts = [one for one in kinds if isinstance(one, type) and issubclass(one, BaseModel)]
        found |= {f"{name}.{inner}" for part in parts for inner in fields_of(part)} or {name}
    return found


def test_an_option_for_each_field_and_none_for_others() -> None:
    assert {"gate.suite", "dare.seed", "method"} <= fields_of(Policy)
    assert all(WITHOUT_OPTION.values()), "each with its reason"
    assert {option.field for option in OPTIONS} == fields_of(Policy) - WITHOUT_OPTION.keys()


@pytest.mark.usefixtures("empty")
@only_sqlite
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--gate", "suite"], ("gate", "suite")),
        (["--gate", "suite", "--gate-suite", "nothing"], ("'nothing'", "not registered")),
        (["--gate-suite", "nothing"], ("gate", "kind suite")),
        (["--gate", "magic"], ("gate.kind",)),
        (["--gate", "norm", "--gate-max-relative-norm", "nan"], ("max_relative_norm",)),
        (["--line-search", "0.5", "--line-search", "1"], ("line_search", "gate")),
        (["--line-search", "much"], ("line_search",)),
        (["--by-hand", "--deadline", "2h"], ("by_hand", "deadline")),
        (["--max-per-contributor", "some"], ("max_per_contributor",)),
        (["--max-share-per-contributor", "1.5"], ("max_share_per_contributor",)),
        (["--contributor-weight", "ann"], ("--contributor-weight", "NAME=VALUE")),
        (["--contributor-weight", "ann=-1"], ("contributor_weights",)),
        (["--gate-timeout", "never"], ("'never'", "length of time")),
        (["--screening", "norm=1"], ("--screening", "CHECK.PARAMETER=VALUE")),
        (["--screening", "magic.action=warn"], ("'magic'", "copies")),
        (["--screening", "norm.magic=1"], ("'magic'", "'norm'", "deviations")),
        (["--screening", "norm.action=shoot"], ("'action'", "'norm'")),
    ],
)
def test_a_policy_that_contradicts_itself_is_said(
    options: list[str], words: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    run("model", "create", MODEL, "--from", tiny_folder(tmp_path / "m"))
    before = run("model", "show", MODEL, "--json").json()
    failed(run("model", "policy", MODEL, *options), *words)
    assert run("model", "show", MODEL, "--json").json() == before


@pytest.mark.usefixtures("empty")
@only_sqlite
@pytest.mark.parametrize("name", ["tiny", "a/b/c", "../x", "a--b/c", "a/b.git", "ä/b"])
def test_a_name_that_the_hub_would_not_take_is_said(name: str, run: Run, tmp_path: Path) -> None:
    failed(run("model", "create", name, "--from", tiny_folder(tmp_path / "m")), "owner/name")


@pytest.mark.usefixtures("empty")
def test_a_taken_name_is_said(run: Run, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m")
    assert run("model", "create", MODEL, "--from", folder).code == 0
    failed(run("model", "create", MODEL, "--from", folder), "already")


@only_sqlite
@pytest.mark.parametrize("arguments", [["nonsense"], ["up", "--port", "x"], ["up", "--port", "-1"],
                                       ["token", "create", "ann", "--role", "king"], ["model"],
                                       ["token", "create"]])  # fmt: skip
def test_wrong_usage_is_2(arguments: list[str], run: Run) -> None:
    assert run(*arguments).code == 2


@only_sqlite
def test_help_and_version_are_0(run: Run) -> None:
    for arguments in (["--help"], ["--version"], ["model", "create", "--help"], ["up", "--help"]):
        assert run(*arguments).code == 0


@both_databases
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


@only_sqlite
def test_a_port_in_use_is_said(run: Run) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        failed(run("up", "--port", str(port)), str(port), "in use", "--port")


@only_sqlite
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


@only_sqlite
def test_settings_are_shown_with_secrets_masked(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLDFUSION_SECRET", "hunter2" * 6)
    url = "postgresql+psycopg://u:hunter2@h/d"
    for arguments in (["settings"], ["settings", "--json"]):
        shown = run(*arguments, "--database-url", url)
        assert shown.code == 0
        assert "hunter2" not in shown.out and "***" in shown.out


@only_sqlite
def test_a_secret_in_a_bad_setting_is_not_printed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLDFUSION_SECRET", "hunter2")
    ended = run("doctor")
    failed(ended, "secret")
    assert "hunter2" not in ended.err


@only_sqlite
def test_openapi_is_printed_as_the_app_has_it(
    run: Run, repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever is wrong with the deployment that the environment names.
    monkeypatch.setenv("COLDFUSION_PORT", "no number")
    printed = run("openapi").json()
    assert printed == json.loads(json.dumps(repo.app.openapi()))


@both_databases
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


@both_databases
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


@pytest.mark.usefixtures("empty")
@only_sqlite
def test_a_weights_file_alone_is_no_model(run: Run, tmp_path: Path) -> None:
    file = write_file(tmp_path / "w" / "model.safetensors", tiny_tensors())
    failed(run("model", "create", MODEL, "--from", file), "folder")


def test_the_key_is_printed_alone_and_bases_can_be_signed_again(
    run: Run, repo: Repository, tmp_path: Path
) -> None:
    first = run("key")
    assert first.out.startswith("-----BEGIN PUBLIC KEY-----") and "Its id: " in first.err
    said = run("key", "--sign-again", "--json").json()
    assert (said["signed_again"], said["pem"].strip()) == (1, first.out.strip())
    assert said["id"] in first.err
    (tmp_path / "data" / "signing-key.pem").write_text("")
    failed(run("key"), "signing-key.pem", "copy")
