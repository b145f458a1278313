from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coldfusion_client import __main__ as program
from coldfusion_client.cli.app import app
from coldfusion_client.config import credentials_file
from coldfusion_client.training import Data
from coldfusion_shared.finetune import FinetuneSettings
from coldfusion_shared.signing.keys import SigningKey
from tests.client.helpers import model_files, weights
from tests.client.repository import KEY, MODEL, NEEDS, TOKEN, Repository, lines, problem
from tests.client.trainer import FakeTrainer

COMMANDS = [
    *("login", "logout", "models", "contribute", "push", "pull", "evaluate", "status", "watch"),
    *("doctor", "join", "key", "withdraw"),
]


class Ran:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def ran(*arguments: str) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            app(arguments, prog_name="coldfusion-client")
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return Ran(int(ended.value.code or 0), printed.out, printed.err)

    return ran


@pytest.fixture
def logged_in(run: Run, url: str) -> str:
    assert run("login", url, "--token", TOKEN).code == 0
    return url


def test_help_loads_nothing_heavy() -> None:
    heavy = ["torch", "numpy", "httpx", "rich", "transformers", "platformdirs"]
    check = (
        "import sys\nsys.argv = ['coldfusion-client', *sys.argv[1:]]\n"
        "from coldfusion_client.__main__ import main\n"
        "try: main()\nexcept SystemExit as end: code = end.code\n"
        f"print([name for name in {heavy} if name in sys.modules], code)"
    )
    for arguments in (["--help"], ["contribute", "--help"], ["evaluate", "--help"]):
        ended = subprocess.run(
            [sys.executable, "-c", check, *arguments], capture_output=True, text=True, check=True
        )
        assert ended.stdout.splitlines()[-1] == "[] 0"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_common_options_and_the_exit_codes(run: Run, command: str) -> None:
    shown = run(command, "--help").out
    assert "--json" in shown
    assert "--quiet" in shown
    assert "130  interrupted" in shown
    assert command in {"join", "login", "logout"} or "--server" in shown


def test_the_version(run: Run) -> None:
    assert run("--version").out.startswith("coldfusion-client 0.")


@pytest.mark.parametrize(
    "arguments", [[], ["none"], ["pull"], ["push", "a/b", "c", "--onto", "v1"], ["pull", "--x"]]
)
def test_wrong_usage_is_2(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).code == 2


def test_a_missing_extra_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "find_spec", lambda name: None if name == "httpx" else object())
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert "pip install 'coldfusion[client]'" in capsys.readouterr().err
    assert ended.value.code == 2


def test_login_keeps_the_token_and_never_prints_it(run: Run, url: str) -> None:
    ran = run("login", url, "--token", TOKEN)
    assert (ran.code, ran.out) == (0, f"Logged in to {url} as ann (contributor).\n")
    assert json.loads(credentials_file().read_text())["tokens"] == {url: TOKEN}
    assert TOKEN not in ran.out + ran.err
    assert run("models").code == 0
    assert run("logout", "--json").json == {"server": url, "forgotten": True}
    assert "No server is known" in run("models").err


def test_a_token_comes_from_standard_input_or_the_environment(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{TOKEN}\n"))
    assert run("login", url).code == 0
    run("logout")
    monkeypatch.setenv("COLDFUSION_TOKEN", TOKEN)
    monkeypatch.setenv("COLDFUSION_SERVER", url)
    assert run("status", "--json").json["whoami"]["name"] == "ann"
    assert run("login").code == 0


@pytest.mark.parametrize(("token", "code"), [(f"{TOKEN}\n", 0), (f" {TOKEN} ", 0), ("a\nb", 2)])
def test_a_tokens_line_breaks_never_reach_a_header_or_a_message(
    token: str, code: int, run: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLDFUSION_TOKEN", token)
    ran = run("status", "--server", url)
    assert ran.code == code
    assert "a\nb" not in ran.err and "does not answer" not in ran.err


def test_a_token_is_asked_for_without_echo(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import typer

    asked: list[Any] = []

    def prompt(text: str, **options: Any) -> str:
        asked.append(options)
        return TOKEN

    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr(typer, "prompt", prompt)
    assert run("login", url).code == 0
    assert asked[0]["hide_input"]


def test_a_wrong_token_is_4_and_not_kept(run: Run, url: str) -> None:
    ran = run("login", url, "--token", "wrong")
    assert ran.code == 4
    assert "coldfusion-client login" in ran.err
    assert not credentials_file().exists()


def test_an_expired_token_is_4(
    run: Run, logged_in: str, repository: Repository, trainer: FakeTrainer
) -> None:
    repository.faults.append(lambda _: problem(401, "token_expired", "Expired yesterday."))
    ran = run("contribute", MODEL, "--data", "x.csv", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (4, "token_expired")


def test_an_unencrypted_server_is_warned_of(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = run("login", "http://models.invalid", "--token", "a b")
    assert "not encrypted" in ran.err
    assert ran.code == 2


def test_a_server_that_is_not_there_is_6(run: Run) -> None:
    ran = run("models", "--server", "http://127.0.0.1:9")
    assert ran.code == 6
    assert "127.0.0.1:9 does not answer" in ran.err
    assert "Trying again" in ran.err


def test_models(run: Run, logged_in: str) -> None:
    assert run("models").out.splitlines()[1] == f"{MODEL}\tv0\t1\t0\t0"
    assert run("models", "--json").json[0]["name"] == MODEL
    assert run("models", "--quiet").out.startswith(MODEL)


def test_pull_prints_the_folder_and_3_where_nothing_is_newer(
    run: Run, logged_in: str, repository: Repository
) -> None:
    folder = str(Path("base").absolute())
    pull = ("pull", MODEL, "--out", "base", "--if-newer")
    first = run(*pull, "--json")
    assert first.code == 0
    assert set(first.json) == {"model", "version", "path", "digest", "updated"}
    again = run(*pull)
    assert (again.code, again.out) == (3, folder + "\n")
    assert "already newest (v0)" in again.err
    repository.publish(model_files(1))
    newer = run(*pull, "--quiet")
    assert (newer.code, newer.out, newer.err) == (0, folder + "\n", "")
    assert run("pull", MODEL, "--out", "base", "--quiet").code == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["pull", "demo/none"], 5),
        (["pull", MODEL, "--version", "v9"], 5),
        (["pull", MODEL, "--version", "nine"], 2),
        (["pull", "none"], 2),
        (["status", "c404"], 5),
        (["push", MODEL, "nowhere", "--base", "v0"], 8),
        (["push", MODEL, "nowhere"], 2),
    ],
)
def test_mistakes_have_their_codes(
    run: Run, logged_in: str, arguments: list[str], code: int
) -> None:
    ran = run(*arguments)
    assert ran.code == code
    assert any(line.startswith("Error: ") for line in ran.err.splitlines())


def test_push_and_status(run: Run, logged_in: str, repository: Repository) -> None:
    Path("model").mkdir()
    Path("model/model.safetensors").write_bytes(weights(0.5))
    pushed = run("push", MODEL, "model", "--base", "v0", "--json")
    assert (pushed.code, pushed.json["state"]) == (0, "accepted")
    assert "accepted for round 1" in run("push", MODEL, "model", "--base", "v0").out
    assert run("status", "c0", "--quiet").out == "accepted\n"
    assert run("status", MODEL, "--json").json["contributions"][0]["id"] == "c0"
    assert "c0" in run("status", MODEL).out
    assert run("status", "--json").json["contributions"][0]["state"] == "accepted"
    assert "state: accepted" in run("status", "c0").out


def test_status_tells_what_a_round_needs_and_how_late_a_contribution_is(
    run: Run, logged_in: str, repository: Repository, trainer: FakeTrainer
) -> None:
    assert run("contribute", MODEL, "--data", "x.csv", "--output", "mine").code == 0
    assert NEEDS in run("status", MODEL).err
    assert "late" not in run("status", "c0").out
    why = "ann has 1 contribution in this round already."
    repository.contributions["c0"] |= {
        "staleness": 2, "factor": 0.5774, "carried": 1, "reason": why,
    }  # fmt: skip
    said = run("status", "c0").out
    assert "late: 2 bases behind, counts 0.58 times" in said
    for state, told in (("fused", "fused in v1"), ("withdrawn", "withdrawn, v1 contains it")):
        repository.contributions["c0"] |= {"state": state, "result": "v1"}
        assert f"state: {told}\n" in run("status", "c0").out
    assert "kept: moved on to a later round once" in said
    assert f"reason: {why}" in said


def test_status_leaves_out_a_closing_time_that_is_past(
    run: Run, logged_in: str, repository: Repository
) -> None:
    repository.round_changes = {"closes_at": "2100-01-01T00:00:00Z"}
    assert "Closes in " in run("status", MODEL).err
    repository.round_changes = {"closes_at": "2001-01-01T00:00:00Z"}
    assert "Closes" not in run("status", MODEL).err


def test_status_shows_a_round_that_is_under_way(
    run: Run, logged_in: str, repository: Repository
) -> None:
    Path("model").mkdir()
    Path("model/model.safetensors").write_bytes(weights(0.5))
    assert run("push", MODEL, "model", "--base", "v0").code == 0
    gate = {"kind": "suite", "passed": None, "reason": "waits for 1 evaluator"}
    repository.round_changes = {"state": "failed", "reason": "the disk is full", "gate": gate}
    shown = run("status", MODEL)
    assert "Round 1 is failed. the disk is full. waits for 1 evaluator." in shown.err
    assert "Needs" not in shown.err
    assert "c0" in shown.out
    assert run("status", MODEL, "--json").json["round"]["state"] == "failed"
    assert "c0" in run("status").out
    assert repository.seen("GET", "/contributions$")[-1].url.params["round"] == "1"


def test_status_shows_the_quota(run: Run, logged_in: str, repository: Repository) -> None:
    assert run("status", "--json").json["usage"] is None
    repository.usage = {"quota_bytes": None, "quota_uploads": None}
    assert "In use" not in run("status").err
    repository.usage = {
        "kept_bytes": 2_000_000, "unfinished_bytes": 500_000, "uploads": 1,
        "quota_bytes": 10_000_000, "quota_uploads": 20,
    }  # fmt: skip
    assert "In use: 2.5 MB of 10.0 MB, 1 of 20 unfinished uploads." in run("status").err
    repository.usage |= {"day_contributions": 3, "quota_day": 50}
    assert "uploads, 3 of 50 contributions of a day." in run("status").err
    assert run("status", "--json").json["usage"]["quota_uploads"] == 20


def test_tensors_at_fault_are_named(run: Run, logged_in: str) -> None:
    Path("model").mkdir()
    Path("model/model.safetensors").write_bytes(weights(0.5, encoder_bias=(9,)))
    ran = run("push", MODEL, "model", "--base", "v0")
    assert ran.code == 7
    assert "Tensors: encoder.bias" in ran.err


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> FakeTrainer:
    from coldfusion_client import local_trainer

    fake = FakeTrainer()
    given: list[Any] = []

    def settings_of(options: dict[str, Any]) -> FinetuneSettings:
        given.append(options)
        return FinetuneSettings()

    monkeypatch.setattr(local_trainer, "LocalTrainer", lambda: fake)
    monkeypatch.setattr(local_trainer, "settings_of", settings_of)
    return fake


def test_contribute(run: Run, logged_in: str, trainer: FakeTrainer) -> None:
    ran = run("contribute", MODEL, "--data", "x.csv", "--output", "mine", "--epochs", "2")
    assert ran.code == 0
    assert "accepted for round 1. Needs 2 more" in ran.out
    assert "50.0 before (a linear probe of v0), 80.0 finetuned (macro F1 78.5)." in ran.err
    again = run("contribute", MODEL, "--data", "x.csv", "--output", "mine", "--json")
    assert again.json["score_after"] == 80.0
    assert Path(again.json["output"]) == Path("mine").absolute()


def test_task_and_columns_reach_the_reader(run: Run, logged_in: str, trainer: FakeTrainer) -> None:
    columns = ["--column", "label=my = verdict", "--column", "text=body"]
    assert run("contribute", MODEL, "--data", "x.csv", "--task", "regression", *columns).code == 0
    assert trainer.data == Data("x.csv", {"label": "my = verdict", "text": "body"}, "regression")


@pytest.mark.parametrize(
    ("pairs", "message"),
    [(["verdict"], "not ROLE=NAME"), (["label="], "not ROLE=NAME"), (["=x"], "not ROLE=NAME"),
     (["label=a", "label=b"], "given twice")],
)  # fmt: skip
def test_a_column_is_a_role_and_a_name(run: Run, pairs: list[str], message: str) -> None:
    ran = run("contribute", MODEL, "--data", "x", *(w for p in pairs for w in ("--column", p)))
    assert ran.code == 2
    assert message in ran.err


def test_a_rejection_is_7(
    run: Run, logged_in: str, trainer: FakeTrainer, repository: Repository
) -> None:
    reason = "too \x1b[31mfar"
    repository.verdict = {"state": "rejected", "reason": reason, "hint": "Learn slower."}
    ran = run("contribute", MODEL, "--data", "x.csv")
    assert ran.code == 7
    assert "too [31mfar" in ran.err
    assert "Learn slower." in ran.err


def test_ctrl_c_is_130(run: Run, logged_in: str, trainer: FakeTrainer) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    trainer.during = interrupt
    ran = run("contribute", MODEL, "--data", "x.csv")
    assert ran.code == 130
    assert "goes on where it stopped" in ran.err
    as_json = run("contribute", MODEL, "--data", "x.csv", "--json")
    told = json.loads(as_json.out)["error"]
    assert (as_json.code, told["code"], told["exit_code"]) == (130, "interrupted", 130)


def test_what_nobody_foresaw_is_1_and_shown_on_request(
    run: Run,
    logged_in: str,
    trainer: FakeTrainer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trainer.broken = ZeroDivisionError("oops")
    ran = run("contribute", MODEL, "--data", "x.csv")
    assert ran.code == 1
    assert "Error: ZeroDivisionError: oops" in ran.err
    monkeypatch.setenv("COLDFUSION_DEBUG", "1")
    with pytest.raises(SystemExit):
        app(["contribute", MODEL, "--data", "x.csv"], prog_name="coldfusion-client")
    assert "Traceback" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_10(
    run: Run, logged_in: str, trainer: FakeTrainer
) -> None:
    trainer.broken = PermissionError(13, "Permission denied", "/etc/x")
    ran = run("contribute", MODEL, "--data", "x.csv")
    assert ran.code == 10
    assert ran.err.splitlines()[-1] == "Error: /etc/x: Permission denied"


def test_watch_shows_each_event_in_a_line(
    run: Run, logged_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coldfusion_client import events
    from coldfusion_shared.schemas.events import Event

    happened = Event.model_validate(
        {
            "id": 7, "type": "round.closed", "model": MODEL, "at": "2026-01-01T00:00:00Z",
            "data": {"round": 3, "reason": None, "by": "a\x1b[2J"},
        }
    )  # fmt: skip

    def follow(api: Any, model: str, seen: Callable[[Event], None]) -> None:
        seen(happened)

    monkeypatch.setattr(events, "follow", follow)
    assert run("watch", MODEL).out.endswith(" round.closed round=3 by=a[2J\n")
    assert lines(run("watch", MODEL, "--json").out)[0]["id"] == 7


def test_what_is_not_proven_is_12_and_a_folder_is_verified(
    run: Run, logged_in: str, repository: Repository, tmp_path: Path
) -> None:
    assert run("pull", MODEL, "--out", "there").code == 0
    said = run("verify", "there", "--json").json
    assert (said["version"], said["key"]) == ("v0", KEY.public.id)
    assert f"{MODEL} v0" in run("verify", "there").out
    shown = run("key", "--json").json
    assert (shown["server"], shown["id"]) == (logged_in, KEY.public.id)
    (tmp_path / "key.pub").write_text(shown["pem"])
    repository.key = SigningKey.new()
    refused = run("pull", MODEL)
    assert refused.code == 12 and "--key" in refused.err
    assert run("verify", "there", "--key", str(tmp_path / "key.pub")).code == 0
    Path("there", "config.json").write_text("{}")
    assert run("verify", "there").code == 12
    assert "Forgotten" in run("key", "--forget").out
    assert run("key").code == 2
    assert run("pull", MODEL).code == 0
    assert run("key", "--key", str(tmp_path / "key.pub"), "-q").out.strip() == KEY.public.id
    assert run("pull", MODEL).code == 12


def test_a_server_that_signs_nothing_is_said_to_who_wants_to_hear_nothing(
    run: Run, logged_in: str, repository: Repository
) -> None:
    repository.key = None
    ran = run("pull", MODEL, "--out", "base", "--quiet")
    assert (ran.code, ran.out) == (0, f"{Path('base').absolute()}\n")
    assert "signs nothing" in ran.err


def test_verify_says_whose_key_it_was(run: Run, logged_in: str, repository: Repository) -> None:
    assert run("pull", MODEL, "--out", "base").code == 0
    assert f"signed with the key of {logged_in}," in run("verify", "base").out
    assert run("verify", "base", "--json").json["server"] == logged_in
    # A server that was met once is not the one that is meant.
    Path("base/coldfusion.json").write_text(
        Path("base/coldfusion.json").read_text().replace(logged_in, "http://elsewhere.test")
    )
    refused = run("verify", "base")
    assert refused.code == 2 and "--server URL" in refused.err
    assert run("verify", "base", "--server", logged_in).code == 0
