"""What GitHub's runner does with a job, as far as the workflows in examples/ci ask for it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

WAIT_SECONDS = 300
_TOKEN = re.compile(r"\s*(&&|\|\||==|!=|!|\(|\)|'(?:[^']|'')*'|[A-Za-z_][\w.-]*)")
_STATUS = ("success", "failure", "always", "cancelled")


@dataclass
class Expression:
    """
    An expression of a workflow: names, strings, comparisons, and, or, not, and the job's status.

    What it does not know is an error here; a name that leads nowhere is null, as at GitHub.
    """

    text: str
    contexts: Mapping[str, Any]
    status: str = "success"
    tokens: list[str] = field(default_factory=list)

    def value(self) -> Any:
        """Return what it comes to."""
        end = 0
        while end < len(self.text.rstrip()):
            found = _TOKEN.match(self.text, end)
            assert found is not None, f"not understood: {self.text[end:]}"
            self.tokens.append(found[1])
            end = found.end()
        value = self._any_of()
        assert not self.tokens, f"not understood: {self.tokens}"
        return value

    @property
    def asks_for_the_status(self) -> bool:
        return re.search(rf"\b({'|'.join(_STATUS)})\(\)", self.text) is not None

    def _next(self, *wanted: str) -> bool:
        if self.tokens and self.tokens[0] in wanted:
            self.tokens.pop(0)
            return True
        return False

    def _any_of(self) -> Any:
        value = self._all_of()
        while self._next("||"):
            other = self._all_of()
            value = value or other
        return value

    def _all_of(self) -> Any:
        value = self._compared()
        while self._next("&&"):
            other = self._compared()
            value = value and other
        return value

    def _compared(self) -> Any:
        value = self._one()
        if self._next("=="):
            return _text(value).lower() == _text(self._one()).lower()
        if self._next("!="):
            return _text(value).lower() != _text(self._one()).lower()
        return value

    def _one(self) -> Any:
        if self._next("!"):
            return not self._one()
        if self._next("("):
            value = self._any_of()
            assert self._next(")"), "a bracket is open"
            return value
        word = self.tokens.pop(0)
        if word.startswith("'"):
            return word[1:-1].replace("''", "'")
        if self._next("("):
            assert self._next(")") and word in _STATUS, f"no function here: {word}"
            return word in ("always", self.status)
        return _at(self.contexts, word)


def _at(contexts: Mapping[str, Any], path: str) -> Any:
    if path in ("true", "false"):
        return path == "true"
    first, *rest = path.split(".")
    value: Any = contexts[first]
    for name in rest:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass
class Runner:
    """
    A machine that runs one job of a workflow and is then thrown away.

    Attributes:
        workspace: where the repository is checked out.
        environment: of all its programs.
        event: the body of what has started the workflow.
        secrets: of the repository.
        uses: what stands for an action, by its name without a version; gets the step's `with`.
        inputs: those of workflow_dispatch.
        run_id: of the run.
    """

    workspace: Path
    environment: dict[str, str]
    event: dict[str, Any]
    secrets: dict[str, str]
    uses: dict[str, Callable[[Runner, dict[str, str]], None]]
    inputs: dict[str, Any] = field(default_factory=dict)
    run_id: int = 1
    # What came of it.
    status: str = "success"
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)
    said: str = ""
    summary: str = ""

    def run(self, workflow: Path, job: str, **changed: str) -> Runner:
        """Run a job, with variables `changed` for what a project fills in for itself."""
        document = yaml.safe_load(workflow.read_text(encoding="utf-8"))
        described = document["jobs"][job]
        if not self._is_on(described):
            return self
        variables = {name: self._filled(text) for name, text in described["env"].items()}
        self.environment = {**self.environment, **variables, **changed}
        for step in described["steps"]:
            if self._is_on(step):
                self._do(step)
        return self

    def contexts(self) -> dict[str, Any]:
        """Return what expressions can name."""
        return {
            "github": {"event": self.event, "run_id": self.run_id, "run_attempt": 1},
            "secrets": self.secrets,
            "inputs": self.inputs,
            "steps": self.steps,
            "env": self.environment,
            "job": {"status": self.status},
        }

    def _is_on(self, described: dict[str, Any]) -> bool:
        text = str(described.get("if", "success()")).removeprefix("${{").removesuffix("}}")
        asked = Expression(text, self.contexts(), self.status)
        is_on = bool(asked.value())
        return is_on and (asked.asks_for_the_status or self.status == "success")

    def _filled(self, text: Any) -> str:
        def value(found: re.Match[str]) -> str:
            return _text(Expression(found[1], self.contexts(), self.status).value())

        return re.sub(r"\$\{\{(.*?)\}\}", value, _text(text))

    def _do(self, step: dict[str, Any]) -> None:
        name = step.get("name", step.get("uses", ""))
        self.ran.append(name)
        if "uses" in step:
            given = {key: self._filled(text) for key, text in step.get("with", {}).items()}
            self.uses[step["uses"].split("@")[0]](self, given)
            return
        variables = {key: self._filled(text) for key, text in step.get("env", {}).items()}
        code, outputs = self._bash(self._filled(step["run"]), variables)
        self.codes[name] = code
        if code:
            self.status = "failure"
        if "id" in step:
            self.steps[step["id"]] = {"outputs": outputs}

    def _bash(self, script: str, variables: dict[str, str]) -> tuple[int, dict[str, str]]:
        """Run a script as the runner does; return its exit code and what it gave to later steps."""
        folder = self.workspace.parent / "runner"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        files = {name: folder / name for name in ("OUTPUT", "ENV", "STEP_SUMMARY")}
        for file in files.values():
            file.touch()
        (folder / "event.json").write_text(json.dumps(self.event), encoding="utf-8")
        (folder / "step.sh").write_text(script, encoding="utf-8")
        ended = subprocess.run(
            ["bash", "-e", str(folder / "step.sh")],
            cwd=self.workspace,
            env={
                **self.environment,
                **variables,
                **{f"GITHUB_{name}": str(file) for name, file in files.items()},
                "GITHUB_EVENT_PATH": str(folder / "event.json"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WAIT_SECONDS,
        )
        self.said += ended.stdout
        self.summary += files["STEP_SUMMARY"].read_text(encoding="utf-8")
        self.environment = {**self.environment, **_lines(files["ENV"])}
        return ended.returncode, _lines(files["OUTPUT"])


def _lines(file: Path) -> dict[str, str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


@dataclass
class Caches:
    """The caches of a repository: written once by key, found by the beginning of one."""

    folder: Path
    keys: list[str] = field(default_factory=list)

    def restore(self, runner: Runner, given: dict[str, str]) -> None:
        """Stand for actions/cache/restore."""
        wanted = [given["key"], *given.get("restore-keys", "").split()]
        for beginning in wanted:
            for key in reversed(self.keys):
                if key.startswith(beginning):
                    shutil.copytree(self.folder / key, runner.workspace, dirs_exist_ok=True)
                    return

    def save(self, runner: Runner, given: dict[str, str]) -> None:
        """Stand for actions/cache/save."""
        assert given["key"] not in self.keys, "a cache is written once"
        for path in given["path"].split():
            shutil.copytree(runner.workspace / path, self.folder / given["key"] / path)
        self.keys.append(given["key"])
