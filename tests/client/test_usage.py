"""What the program itself says, as a process, of a command line that makes no sense."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from coldfusion_client import __main__ as program
from coldfusion_client.cli import usage

CONTRIBUTE = ("contribute", "a/b")
WRONG = [
    ((*CONTRIBUTE, "--data", "x.csv", "--epochs", "abc"), "'--epochs'", "contribute"),
    ((*CONTRIBUTE, "--data", "x.csv", "--onto", "foo"), "only 'latest' is known", "contribute"),
    ((*CONTRIBUTE, "--data", "x.csv", "--column", "x"), "not ROLE=NAME", "contribute"),
    (CONTRIBUTE, "--data", "contribute"),
    (("push", "a/b"), "FOLDER", "push"),
    (("nothing",), "nothing", ""),
    (("pull", "--nothing"), "--nothing", "pull"),
]


def ran(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "coldfusion_client", *words],
        capture_output=True, text=True, timeout=300, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize(("words", "message", "command"), WRONG)
def test_a_program_gets_one_document_and_a_person_the_usage(
    words: tuple[str, ...], message: str, command: str
) -> None:
    person, both = ran(*words), ran(*words, "--json")
    assert (person.returncode, person.stdout) == (both.returncode, "") == (2, "")
    assert person.stderr == both.stderr
    assert "Usage: coldfusion-client" in both.stderr and "Error: " in both.stderr
    told = json.loads(both.stdout)["error"]
    assert (told["code"], told["exit_code"]) == ("invalid_request", 2)
    assert message in told["message"]
    assert told["hint"] == f"See {' '.join(filter(None, ['coldfusion-client', command]))} --help"


def test_a_mistake_in_the_file_is_a_document_too() -> None:
    Path("contribution.toml").write_text("[settings]\nepochz = 3\n")
    told = ran("contribute", "--json")
    assert told.returncode == 2
    assert "do you mean epochs?" in json.loads(told.stdout)["error"]["message"]


def test_of_several_processes_one_writes_the_document() -> None:
    both = [ran("pull", "--json", RANK=rank, WORLD_SIZE="2").stdout for rank in ("0", "1")]
    assert json.loads(both[0])["error"]["exit_code"] == 2
    assert both[1] == ""


def test_a_missing_extra_is_a_document_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["coldfusion-client", "models", "--json"])
    with pytest.raises(SystemExit):
        program.main()
    told = json.loads(capsys.readouterr().out)["error"]
    assert (told["code"], told["exit_code"]) == ("missing_extra", 2)


@pytest.mark.parametrize("words", [("--help",), ("pull", "--help"), ("--version",)])
def test_what_was_asked_for_is_no_error(words: tuple[str, ...]) -> None:
    done = ran(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "oldfusion-client" in done.stdout


def test_a_reader_that_has_seen_enough_is_no_traceback(url: str) -> None:
    command = [sys.executable, "-m", "coldfusion_client", "models", "--server", url]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300)
    os.close(writing)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_ctrl_c_is_130_and_a_document() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(300)
        server = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = [*(sys.executable, "-m", "coldfusion_client", "models"), "--server", server]
        with subprocess.Popen(
            [*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as waiting:
            connection, _ = silent.accept()
            # It has asked, and waits for the answer.
            assert connection.recv(1)
            waiting.send_signal(signal.SIGINT)
            output, errors = waiting.communicate(timeout=300)
            connection.close()
    assert waiting.returncode == 130, errors
    assert json.loads(output)["error"]["code"] == "interrupted"


def test_who_gives_up_a_question_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(**_: object) -> None:
        raise typer.Abort

    monkeypatch.setattr(usage, "app", end)
    assert usage.run([]) == 1
    assert capsys.readouterr().err == "Aborted!\n"
