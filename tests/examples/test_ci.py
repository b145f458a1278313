"""The CI examples, step by step as a runner takes them, against a really running server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import yaml

from coldfusion_server.events.webhooks.messages import body_of
from coldfusion_server.services import models
from coldfusion_shared.schemas.models import Policy
from coldfusion_shared.schemas.webhooks import WebhookFormat
from coldfusion_shared.signing.keys import SigningKey
from coldfusion_shared.weights.checkpoint import Checkpoint
from coldfusion_shared.weights.write import write_body
from tests.e2e.programs import BIN, WAIT_SECONDS, Client, Server, wait_until
from tests.examples.actions import Caches, Expression, Runner
from tests.faults.models import finetuned
from tests.server.repository import ANY_UPDATE, SIGNING_KEY, repository
from tests.tiny_models import tiny_bert

EXAMPLES = Path(__file__).parents[2] / "examples" / "ci"
POLL, ON_PUBLISH = EXAMPLES / "github-poll.yml", EXAMPLES / "github-on-publish.yml"
GITLAB = yaml.safe_load((EXAMPLES / "gitlab-ci.yml").read_text(encoding="utf-8"))
JENKINS = (EXAMPLES / "Jenkinsfile").read_text(encoding="utf-8")
MODEL = "acme/encoder"
PULL_POLL, PULL_EVENT = "Pull the newest base if it is another one", "Pull exactly that base"

DISPATCHES = "/repos/OWNER/REPOSITORY/dispatches"
DISPATCHED: list[dict[str, Any]] = []

# Stands for a project's own tests, which take their time; the ones in examples/ci run once.
QUICK = """import json, os, pathlib

def test_base():
    base = pathlib.Path(os.environ["BASE"])
    assert json.loads((base / "config.json").read_text())["model_type"] == "bert"
    assert (base / "model.safetensors").stat().st_size > 1000
"""
# What the workflows install is here: it writes down what it is asked for.
PIP = """#!/bin/sh
echo "$@" >> "$HOME/installed"
"""


class GitHub(BaseHTTPRequestHandler):
    """GitHub's door for repository_dispatch."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        good = self.path == DISPATCHES and self.headers["Authorization"] == "Bearer github-token"
        if good:
            DISPATCHED.append(body)
        self.send_response(204 if good else 404)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def github() -> Iterator[str]:
    """Serve it, and yield where a webhook posts to."""
    with ThreadingHTTPServer(("127.0.0.1", 0), GitHub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}{DISPATCHES}"
        server.shutdown()


@dataclass
class Community:
    """A running server with a private model, and who works on it."""

    server: Server
    pretrained: Path
    folder: Path
    ann: Client
    reader: str
    rounds: int = 0

    @property
    def version(self) -> str:
        return str(self.server.get(f"/models/{MODEL}")["current"])

    def publish(self) -> str:
        """Go through a round; return the new base's version."""
        self.rounds += 1
        before, folder = self.version, self.folder / f"finetuned-{self.rounds}"
        model = finetuned(self.pretrained, folder / "model", self.rounds)
        file = folder / "model.safetensors"
        with Checkpoint.from_folder(model) as ours, Checkpoint.from_folder(self.pretrained) as base:
            write_body(ours, base, file)
        self.ann.send_raw(MODEL, before, file)
        wait_until(lambda: self.version != before, "a round")
        return self.version

    def roll_back(self, version: str) -> None:
        """Make an older base the newest."""
        self.ask(f"/models/{MODEL}/rollback", {"version": version, "reason": "it forgot"})

    def ask(self, path: str, body: dict[str, Any]) -> None:
        """Post something as a maintainer."""
        answer = httpx.post(
            f"{self.server.url}/v1{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.server.admin}"},
            trust_env=False,
            timeout=120,
        )
        assert answer.is_success, answer.text

    def published(self, version: str) -> dict[str, Any]:
        """Return the event of a base, as the API has it."""
        return next(
            dict(item)
            for item in self.server.get(f"/events?model={MODEL}&after=0")
            if item["type"] == "base.published" and item["data"]["version"] == version
        )


@pytest.fixture(scope="module")
def community(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Community]:
    folder = tmp_path_factory.mktemp("repository")
    pretrained = tiny_bert(folder / "pretrained")
    rules = Policy(min_contributions=1, screening=ANY_UPDATE)
    with repository(folder / "data") as made:
        models.create_model(made.ctx, MODEL, pretrained, "tests", rules, public=False)
        ann, reader = made.token("ann"), made.token("ci", "reader")
        maintainer = made.token("mia", "maintainer")
    server = Server(folder / "data", settings={"COLDFUSION_WEBHOOK_PRIVATE": "127.0.0.0/8"})
    server.start()
    server.admin = maintainer
    made_there = Community(server, pretrained, folder, Client(server, folder, ann), reader)
    try:
        with github() as url:
            webhook = {"model": MODEL, "url": url, "format": "github"}
            made_there.ask("/webhooks", {**webhook, "authorization": "Bearer github-token"})
            yield made_there
    finally:
        server.end()


@dataclass
class Project:
    """Somebody's repository with an example in it, and the machines that run its pipelines."""

    community: Community
    folder: Path
    caches: Caches
    runs: int = 0

    @property
    def environment(self) -> dict[str, str]:
        """What is on such a machine before the pipeline says anything."""
        return {
            "PATH": os.pathsep.join([str(self.folder / "bin"), str(BIN), os.environ["PATH"]]),
            "HOME": str(self.folder),
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
            # Of what is installed here, a project has pytest alone.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }

    @property
    def settings(self) -> dict[str, str]:
        """What a project fills in for itself."""
        return {"COLDFUSION_SERVER": self.community.server.url}

    def machine(self) -> Path:
        """Return a new machine's checkout."""
        self.runs += 1
        workspace = self.folder / f"run-{self.runs}" / "workspace"
        shutil.copytree(self.folder / "repository", workspace)
        return workspace

    def run(self, workflow: Path, event: Any = None, **inputs: Any) -> Runner:
        """Let a new machine of GitHub run a workflow's job."""
        runner = Runner(
            self.machine(),
            self.environment,
            event or {},
            {"COLDFUSION_TOKEN": self.community.reader},
            {
                "actions/checkout": lambda runner, given: None,
                "actions/setup-python": lambda runner, given: None,
                "actions/cache/restore": self.caches.restore,
                "actions/cache/save": self.caches.save,
            },
            inputs,
            self.runs,
        )
        return runner.run(workflow, "test", **self.settings)


@pytest.fixture
def project(community: Community, tmp_path: Path) -> Project:
    ci = tmp_path / "repository" / "ci"
    ci.mkdir(parents=True)
    shutil.copy(EXAMPLES / "pull_base.py", ci)
    (ci / "test_base.py").write_text(QUICK)
    (ci / "models.example.org.pem").write_bytes(SIGNING_KEY.public.pem)
    pip = tmp_path / "bin" / "pip"
    pip.parent.mkdir()
    pip.write_text(PIP)
    pip.chmod(0o755)
    return Project(community, tmp_path, Caches(tmp_path / "caches"))


def test_the_polling_workflow_tests_what_is_newer_and_stops_at_a_rollback(
    project: Project, community: Community
) -> None:
    first = project.run(POLL)
    assert first.status == "success", first.said
    assert first.steps["pull"]["outputs"]["newer"] == "true"
    assert "1 passed" in first.said and "Keep it" in first.ran
    assert first.summary == f"{MODEL} {community.version}: newer true, success\n"

    again = project.run(POLL)
    assert again.status == "success", again.said
    assert again.steps["pull"]["outputs"]["newer"] == "false"
    assert "Test it" not in again.ran and "Keep it" not in again.ran

    before = community.version
    published = community.publish()
    newer = project.run(POLL)
    assert newer.steps["pull"]["outputs"] == {
        "newer": "true",
        "version": published,
        "digest": community.published(published)["data"]["digest"],
    }
    assert "1 passed" in newer.said and newer.status == "success"

    community.roll_back(before)
    back = project.run(POLL)
    assert (back.status, back.codes[PULL_POLL]) == ("failure", 13)
    assert f"to {before}" in back.said and "it forgot" in back.said
    assert "Test it" not in back.ran and "Keep it" not in back.ran
    assert back.summary == f"{MODEL} unknown: newer unknown, failure\n"

    # Somebody has read it, and starts the workflow by hand.
    accepted = project.run(POLL, accept_rollback=True)
    assert accepted.steps["pull"]["outputs"]["version"] == before, accepted.said
    assert accepted.status == "success" and "1 passed" in accepted.said
    assert len(project.caches.keys) == 3


def test_a_base_that_fails_its_tests_is_not_kept_and_so_tested_again(project: Project) -> None:
    test = project.folder / "repository" / "ci" / "test_base.py"
    test.write_text("def test_it():\n    assert False, 'far too slow'\n")
    run = project.run(POLL)
    assert (run.status, run.codes["Test it"]) == ("failure", 1)
    assert "far too slow" in run.said and not project.caches.keys


def github_event(community: Community, version: str, **changed: Any) -> dict[str, Any]:
    """Return what GitHub makes of a webhook's body, `changed` in its payload."""
    body = body_of(community.published(version), WebhookFormat.GITHUB)
    return event_of({**body, "client_payload": {**body["client_payload"], **changed}})


def event_of(body: dict[str, Any]) -> dict[str, Any]:
    return {"action": body["event_type"], "client_payload": body["client_payload"]}


def dispatched(version: str) -> dict[str, Any]:
    """Return what the server has posted to GitHub of a base, as the event that comes of it."""

    def found() -> Any:
        bodies = [one for one in DISPATCHED if one["client_payload"]["data"]["version"] == version]
        return bodies[0] if bodies else None

    return event_of(wait_until(found, "the webhook"))


def test_the_workflow_on_publish_tests_exactly_the_base_of_the_event(
    project: Project, community: Community
) -> None:
    published = community.publish()
    community.publish()
    shutil.copy(EXAMPLES / "test_base.py", project.folder / "repository" / "ci")
    event = dispatched(published)
    assert event == github_event(community, published)
    (types,) = yaml.safe_load(ON_PUBLISH.read_text())[True]["repository_dispatch"]["types"]
    assert event["action"] == types
    run = project.run(ON_PUBLISH, event)
    assert run.status == "success", run.said
    digest = event["client_payload"]["data"]["digest"]
    assert run.steps["pull"]["outputs"]["version"] == published != community.version
    assert "1 passed" in run.said
    assert run.summary == f"{MODEL} {published} ({digest}): success\n"
    installed = (project.folder / "installed").read_text()
    assert installed == "install coldfusion[client] pytest torch transformers\n"


def data_with(**changed: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda data: {**data, **changed}


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        (data_with(version="v0; touch pwned"), 2),
        (data_with(version="--server=http://evil.example"), 2),
        (data_with(version=["v0"]), 2),
        (data_with(version="v999"), 5),
        (data_with(digest="$(touch pwned)"), 2),
        (data_with(digest="0" * 64), 12),
        (lambda data: {}, 2),
        (lambda data: None, 2),
    ],
    ids=["shell", "an option", "a list", "no such", "shell in digest", "swapped", "none", "null"],
)
def test_an_event_that_says_something_else_fails_the_run(
    project: Project, community: Community, changed: Any, code: int
) -> None:
    event = github_event(community, "v0")
    event["client_payload"]["data"] = changed(event["client_payload"]["data"])
    run = project.run(ON_PUBLISH, event)
    assert (run.status, run.codes[PULL_EVENT]) == ("failure", code), run.said
    assert "Test it" not in run.ran and "Traceback" not in run.said
    assert not list(project.folder.rglob("pwned"))


@pytest.mark.parametrize("text", ["[]", "null", '"base.published"', "", '{"client_payload": 5}'])
def test_what_is_no_event_at_all_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "event.json").write_text(text)
    command = [sys.executable, str(EXAMPLES / "pull_base.py"), MODEL, "base", "--event"]
    ended = subprocess.run(
        [*command, "event.json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr


def test_an_event_of_another_model_starts_no_job(project: Project, community: Community) -> None:
    event = github_event(community, "v0", model="acme/other; touch pwned")
    assert project.run(ON_PUBLISH, event).ran == []


def test_another_key_than_the_projects_own_is_refused(
    project: Project, community: Community
) -> None:
    key = project.folder / "repository" / "ci" / "models.example.org.pem"
    key.write_bytes(SigningKey.from_secret(b"another one").public.pem)
    run = project.run(ON_PUBLISH, github_event(community, "v0"))
    assert (run.status, run.codes[PULL_EVENT]) == ("failure", 12), run.said


def shell(project: Project, workspace: Path, script: str, **more: str) -> tuple[int, str]:
    ended = subprocess.run(
        ["bash", "-e"],
        input=script,
        cwd=workspace,
        env={**project.environment, "COLDFUSION_TOKEN": project.community.reader, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WAIT_SECONDS,
    )
    return ended.returncode, ended.stdout


def test_the_gitlab_jobs_do_the_same(project: Project, community: Community) -> None:
    def job(name: str, workspace: Path, **more: str) -> tuple[int, str]:
        described = GITLAB[name]
        script = "\n".join([*GITLAB[".base"]["before_script"], *described["script"]])
        variables = {**GITLAB[".base"]["variables"], **described.get("variables", {})}
        return shell(project, workspace, script, **{**variables, **project.settings, **more})

    assert '"trigger" && $TRIGGER_PAYLOAD' in GITLAB["published"]["rules"][0]["if"]
    payload = project.folder / "payload.json"
    payload.write_text(json.dumps(body_of(community.published("v0"), WebhookFormat.COLDFUSION)))
    workspace = project.machine()
    code, said = job("published", workspace, TRIGGER_PAYLOAD=str(payload))
    assert code == 0 and "1 passed" in said, said
    assert "version=v0" in (workspace / "pull.env").read_text()

    workspace = project.machine()
    code, said = job("newest", workspace)
    assert code == 0 and "1 passed" in said, said
    # The cache that GitLab keeps is in the folder; the rest of it is cleaned.
    (workspace / "pull.env").unlink()
    code, said = job("newest", workspace)
    assert code == 0 and "passed" not in said, said
    assert "newer=false" in (workspace / "pull.env").read_text()


def test_the_steps_of_the_jenkinsfile_do_the_same(project: Project, community: Community) -> None:
    blocks = re.findall(r"sh '''\n(.*?)'''|sh '(.*?)'\n", JENKINS, re.DOTALL)
    install, pull, test = (many or one for many, one in blocks)
    assert ".venv/bin/pip install" in install
    workspace = project.machine()
    (workspace / ".venv").mkdir()
    (workspace / ".venv" / "bin").symlink_to(BIN)
    set_there = dict(re.findall(r"^ +([A-Z_]+) = '(.*)'$", JENKINS, re.MULTILINE))
    settings = {**set_there, **project.settings, "ACCEPT_ROLLBACK": "false"}
    (workspace / "event.json").write_text("")
    code, said = shell(project, workspace, pull, **settings)
    assert code == 0 and "newer=true" in (workspace / "pull.env").read_text(), said
    # As Generic Webhook Trigger gives it, which writeFile puts there.
    (workspace / "event.json").write_text(json.dumps(community.published("v0")))
    code, said = shell(project, workspace, pull, **settings)
    assert code == 0 and "version=v0" in (workspace / "pull.env").read_text(), said
    code, said = shell(project, workspace, test, **settings)
    assert code == 0 and "1 passed" in said, said
    assert JENKINS.count("{") == JENKINS.count("}") and JENKINS.count("(") == JENKINS.count(")")


@pytest.mark.parametrize(
    ("file", "schema"),
    [
        ("github-poll.yml", "vendor.github-workflows"),
        ("github-on-publish.yml", "vendor.github-workflows"),
        ("gitlab-ci.yml", "vendor.gitlab-ci"),
    ],
)
def test_the_files_are_what_their_schemas_ask_for(file: str, schema: str) -> None:
    checked = subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", schema, EXAMPLES / file],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout


def audited(*workflows: Path) -> subprocess.CompletedProcess[str]:
    """Let zizmor look for what makes a workflow unsafe, without the network."""
    options = ["--offline", "--pedantic", "--no-progress", "--color=never"]
    return subprocess.run([BIN / "zizmor", *options, *workflows], capture_output=True, text=True)


def test_nothing_unsafe_is_found_in_the_workflows(tmp_path: Path) -> None:
    checked = audited(POLL, ON_PUBLISH)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    worse = tmp_path / "worse.yml"
    worse.write_text(
        ON_PUBLISH.read_text().replace(
            '"$GITHUB_EVENT_PATH"', "${{ github.event.client_payload.data.version }}"
        )
    )
    found = audited(worse)
    assert found.returncode != 0 and "template-injection" in found.stdout


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("steps.pull.outputs.newer == 'TRUE'", True),
        ("steps.none.outputs.newer == ''", True),
        ("steps.pull.outputs.newer != 'true' || inputs.yes", True),
        ("!inputs.yes && 'it''s' || 'no'", "no"),
        ("(inputs.yes && failure()) == 'true'", True),
        ("success()", False),
        ("always()", True),
    ],
)
def test_the_runner_here_understands_what_githubs_does(text: str, value: Any) -> None:
    contexts = {"steps": {"pull": {"outputs": {"newer": "true"}}}, "inputs": {"yes": True}}
    assert Expression(text, contexts, "failure").value() == value


def test_every_action_is_pinned_by_commit_and_every_job_ends() -> None:
    for workflow in (POLL, ON_PUBLISH):
        document = yaml.safe_load(workflow.read_text())
        assert document["permissions"] == {"contents": "read"}
        for job in document["jobs"].values():
            assert 0 < job["timeout-minutes"] <= 60
            used = [step["uses"] for step in job["steps"] if "uses" in step]
            assert used and all(re.search(r"@[0-9a-f]{40}$", one) for one in used)
