"""What the how-to pages show can be typed, submitted and imported."""

from __future__ import annotations

import ast
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PAGES = Path(__file__).parents[1] / "docs" / "how-to"
CLUSTERS = (PAGES / "clusters.md").read_text(encoding="utf-8")
NAMES = ["ci.md", "clusters.md", "evaluate.md", "python.md", "shell.md"]

# Stands for the client: writes down what it is called with, and answers as the real one does.
STUB = """#!/bin/sh
echo "$@" >> "$CALLS"
case $1 in
  status) head -n 1 "$STATES"; sed -i 1d "$STATES" ;;
esac
"""


def blocks(page: str, language: str) -> list[str]:
    text = (PAGES / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def block(language: str, of: str) -> str:
    (found,) = [one for one in blocks("clusters.md", language) if of in one]
    return found


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    program = tmp_path / "bin" / "coldfusion-client"
    program.parent.mkdir()
    program.write_text(STUB)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    sleep = program.with_name("sleep")
    sleep.write_text("#!/bin/sh\n")
    sleep.chmod(0o755)
    (tmp_path / ".coldfusion-token").write_text("cf_secret\n")
    (tmp_path / "datasets.txt").write_text("one.csv\nzwei ü.csv\nthree\n")
    return {
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "SCRATCH": str(tmp_path / "scratch"),
        "CALLS": str(tmp_path / "calls"),
        "STATES": str(tmp_path / "states"),
    }


def run(script: str, settings: dict[str, str], *words: str) -> tuple[int, str, list[str]]:
    ended = subprocess.run(
        ["sh", "-c", script, "sh", *words],
        env=settings,
        cwd=settings["HOME"],
        capture_output=True,
        text=True,
    )
    calls = Path(settings["CALLS"])
    called = calls.read_text(encoding="utf-8").splitlines() if calls.exists() else []
    return ended.returncode, ended.stdout, called


@pytest.mark.parametrize("page", NAMES)
def test_shell_parts_parse(page: str) -> None:
    for text in blocks(page, "sh"):
        subprocess.run(["sh", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize("page", NAMES)
def test_every_option_that_is_shown_exists(page: str) -> None:
    from typer.main import get_command

    from coldfusion_client.cli.app import app

    program: Any = get_command(app)
    text = (PAGES / page).read_text(encoding="utf-8").replace("\\\n", " ")
    shown = re.findall(r"coldfusion-client ([a-z]+)((?: [^\n`]*)?)", text)
    assert shown
    for command, line in shown:
        known = {flag for param in program.commands[command].params for flag in param.opts}
        known |= {flag for one in program.commands[command].params for flag in one.secondary_opts}
        assert set(re.findall(r"(?<= )--[a-z-]+", line)) <= known, line


@pytest.mark.parametrize("page", NAMES)
def test_python_parts_name_what_there_is(page: str) -> None:
    for text in blocks(page, "python"):
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("coldfusion"):
                module = __import__(str(node.module), fromlist=["x"])
                assert all(hasattr(module, one.name) for one in node.names)


def test_the_job_looks_first_and_then_contributes(settings: dict[str, str]) -> None:
    code, _, called = run(block("sh", "--requeue"), settings)
    assert (code, called[0]) == (0, "doctor --quiet")
    assert f"--output {settings['SCRATCH']}/reviews --onto latest --no-progress" in called[1]


def test_each_task_of_the_array_takes_its_line(settings: dict[str, str]) -> None:
    code, _, called = run(block("sh", "--array"), {**settings, "SLURM_ARRAY_TASK_ID": "2"})
    assert code == 0
    assert "--data zwei ü.csv" in called[0] and called[0].count("/runs/2 ") == 1


@pytest.mark.parametrize(
    ("states", "code"), [("declared\ncompleted\naccepted\n", 0), ("completed\nrejected\n", 1)]
)
def test_waiting_ends_with_the_verdict(states: str, code: int, settings: dict[str, str]) -> None:
    Path(settings["STATES"]).write_text(states)
    ended, said, called = run(block("sh", "while state="), settings, "c7")
    assert (ended, said.split()) == (code, states.split()[-1:])
    assert set(called) == {"status c7 --quiet"} and len(called) == len(states.split())


@pytest.mark.parametrize(
    ("of", "schema"),
    [("actions/checkout", "vendor.github-workflows"), ("resource_group", "vendor.gitlab-ci")],
)
def test_workflows_are_what_their_schemas_ask_for(of: str, schema: str, tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "check-jsonschema"
    if not program.exists() and shutil.which("check-jsonschema") is None:
        pytest.skip("check-jsonschema is not installed")
    text = block("yaml", of)
    assert isinstance(yaml.safe_load(text), dict)
    file = tmp_path / "workflow.yaml"
    file.write_text(text, encoding="utf-8")
    checked = subprocess.run(
        [str(program), "--builtin-schema", schema, str(file)], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout
