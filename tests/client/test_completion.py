from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coldfusion_client.cli import completion
from coldfusion_client.cli.completion import KEPT_SECONDS, model_names
from tests.client.repository import MODEL, TOKEN, Repository

BIN = Path(sys.executable).parent
SHELLS = ("bash", "zsh", "fish")


@pytest.fixture
def known(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    # In this process; the programs have the usual patience.
    monkeypatch.setattr(completion, "SECONDS", 60.0)
    monkeypatch.setenv("COLDFUSION_SERVER", url)
    monkeypatch.setenv("COLDFUSION_TOKEN", TOKEN)
    return url


def proposed(shell: str, line: str) -> bool:
    """Return whether the model is proposed, by one of some tries: a slow answer is given up."""
    return any(MODEL in ask(shell, line) for _ in range(5))


def ask(shell: str, line: str) -> str:
    """Return what the program proposes to a shell for the unfinished `line`."""
    words = line.split(" ")
    asked = {
        "_COLDFUSION_CLIENT_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    program = [str(BIN / "coldfusion-client")]
    ended = subprocess.run(
        program, env={**os.environ, **asked}, capture_output=True, text=True, timeout=300
    )
    assert ended.stderr == ""
    return ended.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_options_and_models_are_proposed(shell: str, known: str) -> None:
    assert "contribute" in ask(shell, "coldfusion-client con")
    assert "--version" in ask(shell, "coldfusion-client pull --ver")
    assert proposed(shell, "coldfusion-client contribute de")
    assert MODEL not in ask(shell, "coldfusion-client pull zz")


@pytest.mark.parametrize("command", ["init", "pull", "push", "status", "watch"])
def test_every_command_that_takes_a_model_proposes_it(command: str, known: str) -> None:
    assert proposed("bash", f"coldfusion-client {command} de")


def test_the_server_of_the_line_is_asked(url: str) -> None:
    assert proposed("bash", f"coldfusion-client pull --server {url} de")


@pytest.mark.parametrize("server", ["http://127.0.0.1:9", "nonsense", ""])
def test_offline_there_is_silence(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLDFUSION_SERVER", server)
    assert ask("bash", "coldfusion-client pull de").strip() == ""


def test_names_are_kept_for_a_while_and_for_their_token_alone(
    known: str, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert model_names(None) == model_names(None) == [MODEL]
    assert len(repository.seen("GET", "/v1/models$")) == 1
    (kept,) = (tmp_path / "cache" / "completion").iterdir()
    assert kept.stat().st_mode & 0o077 == 0 or sys.platform == "win32"
    monkeypatch.setenv("COLDFUSION_TOKEN", "cf_another")
    model_names(None)
    assert len(repository.seen("GET", "/v1/models$")) == 2
    monkeypatch.setenv("COLDFUSION_TOKEN", TOKEN)
    old = time.time() - KEPT_SECONDS - 1
    os.utime(kept, (old, old))
    model_names(None)
    assert len(repository.seen("GET", "/v1/models$")) == 3


def test_what_is_kept_may_be_damaged(known: str, tmp_path: Path) -> None:
    model_names(None)
    (kept,) = (tmp_path / "cache" / "completion").iterdir()
    kept.write_text("{")
    assert model_names(None) == [MODEL]


def test_a_silent_server_is_given_up_soon(
    known: str, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "SECONDS", 0.05)
    repository.faults.append(lambda request: time.sleep(0.5))
    context = type("Context", (), {"params": {}})()
    assert completion.complete_model(context, "de") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_for_each_shell_is_shown(shell: str) -> None:
    asked = {**os.environ, "_COLDFUSION_CLIENT_COMPLETE": f"source_{shell}"}
    program = [str(BIN / "coldfusion-client")]
    script = subprocess.run(program, env=asked, capture_output=True, text=True, check=True).stdout
    assert "coldfusion-client" in script and "_COLDFUSION_CLIENT_COMPLETE=complete_" in script
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed, which would read the script")
    subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_bash_completes_and_keeps_what_install_writes(known: str, tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    home = tmp_path / "home ü"
    home.mkdir()
    settings = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    script = (
        "coldfusion-client --install-completion > /dev/null\n"
        'source "$HOME/.bashrc"\n'
        "COMP_WORDS=(coldfusion-client pull de) COMP_CWORD=2\n"
        "for again in 1 2 3 4 5; do\n"
        "_coldfusion_client_completion coldfusion-client\n"
        'test -z "${COMPREPLY[*]}" || break; done\n'
        'echo "proposed ${COMPREPLY[*]}"\n'
    )
    ended = subprocess.run(
        ["bash", "-c", script], env=settings, capture_output=True, text=True, timeout=300
    )
    assert ended.stdout == f"proposed {MODEL}\n", ended.stderr


def test_fish_completes_with_its_script(known: str, tmp_path: Path) -> None:
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("fish is not installed")
    settings = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    script = (
        "_COLDFUSION_CLIENT_COMPLETE=source_fish coldfusion-client | source\n"
        'complete -C "coldfusion-client pull de"\n'
    )
    ended = subprocess.run(
        [fish, "--no-config", "-c", script],
        env=settings,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.stdout.split() == [MODEL], ended.stderr
