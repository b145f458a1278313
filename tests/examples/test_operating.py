"""docs/how-to/webhooks.md and docs/how-to/monitoring.md, typed as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import IO, Any

import httpx
import pytest
import yaml

from coldfusion_server.events.webhooks.messages import encoded, headers_of
from coldfusion_shared.schemas.webhooks import WebhookFormat
from tests.e2e.programs import BIN, WAIT_SECONDS, Server, wait_until
from tests.server.repository import repository

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "how-to"
WEBHOOKS = (PAGES / "webhooks.md").read_text(encoding="utf-8")
MONITORING = (PAGES / "monitoring.md").read_text(encoding="utf-8")
MODEL = "acme/encoder"
# The page's receiver asks for this port; here it takes one that is free, and tells it.
LISTEN, LISTEN_HERE = (
    'HTTPServer(("127.0.0.1", 9000), Receiver).serve_forever()',
    'server = HTTPServer(("127.0.0.1", 0), Receiver)\n'
    "print(server.server_port, flush=True)\nserver.serve_forever()",
)


def parts(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@dataclass
class Operator:
    """Somebody at the server's data folder."""

    server: Server
    home: Path
    token: str

    def shell(self, script: str, **changed: str) -> str:
        """Run what a page shows, with `changed` in place of what stands for people's own."""
        for there, here in {"https://models.example.org": self.server.url, **changed}.items():
            script = script.replace(there, here)
        ended = subprocess.run(
            ["bash", "-euc", script],
            cwd=self.home,
            env={
                **os.environ,
                "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]),
                "COLDFUSION_DATA_DIR": str(self.server.data_dir),
                "COLDFUSION_WEBHOOK_PRIVATE": "127.0.0.0/8",
                "COLDFUSION_SERVER": self.server.url,
                "COLDFUSION_TOKEN": self.token,
                "NO_PROXY": "127.0.0.1",
            },
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def get(self, path: str) -> Any:
        return self.server.get(path)

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"{self.server.url}/v1{path}"
        with httpx.Client(headers=headers, trust_env=False, timeout=120) as http:
            http.request(method, url, json=body).raise_for_status()


@dataclass
class Receiver:
    """The page's program; `output` are the lines that it prints."""

    output: Queue[str]
    url: str
    webhook: str
    secret: str

    def line(self) -> str:
        return self.output.get(timeout=WAIT_SECONDS)


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    folder = tmp_path_factory.mktemp("operating")
    with repository(folder / "data") as made:
        made.model(MODEL)
        admin = made.token("adm", "admin")
    server = Server(folder / "data", settings={"COLDFUSION_WEBHOOK_PRIVATE": "127.0.0.0/8"})
    server.start()
    server.admin = admin
    home = folder / "home"
    home.mkdir()
    for name in ("github-token", "trigger-token", "jenkins-token"):
        (home / name).write_text(f"the {name}\n".replace(" ", "-"))
    try:
        yield Operator(server, home, admin)
    finally:
        server.end()


@pytest.fixture(scope="module")
def receiver(operator: Operator) -> Iterator[Receiver]:
    """The page's receiver, and the page's first webhook, which leads there."""
    (operator.home / "receiver.py").write_text(
        parts(WEBHOOKS, "python")[1].replace(LISTEN, LISTEN_HERE)
    )
    # The receiver has to know the secret, and the webhook the receiver.
    operator.shell(parts(WEBHOOKS, "sh")[0], **{"https://ci.example.org": "http://127.0.0.1:9999"})
    (webhook,) = operator.get("/webhooks")
    secret = (operator.home / "webhook-secret").read_text().strip()
    process = subprocess.Popen(
        [sys.executable, "receiver.py"],
        cwd=operator.home,
        env={**os.environ, "WEBHOOK_SECRET": secret},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    # Read beside the tests: one that waits for a line in vain fails, and does not hang.
    output: Queue[str] = Queue()
    reading = Thread(target=_read, args=(process.stdout, output))
    reading.start()
    try:
        port = int(output.get(timeout=WAIT_SECONDS))
        url = f"http://127.0.0.1:{port}/hooks/coldfusion"
        operator.ask("PATCH", f"/webhooks/{webhook['id']}", {"url": url})
        yield Receiver(output, url, webhook["id"], secret)
    finally:
        process.kill()
        process.wait()
        reading.join()
        process.stdout.close()


def _read(lines: IO[str], output: Queue[str]) -> None:
    for line in lines:
        output.put(line)


def test_the_receiver_of_the_page_takes_what_is_signed(
    operator: Operator, receiver: Receiver
) -> None:
    operator.ask("POST", f"/webhooks/{receiver.webhook}/ping")
    assert receiver.line().startswith("webhook.ping")
    # The secret before the present one signs as well.
    operator.ask("POST", f"/webhooks/{receiver.webhook}/rotate")
    operator.ask("POST", f"/webhooks/{receiver.webhook}/ping")
    assert receiver.line().startswith("webhook.ping")


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({}, 204),
        ({"webhook-signature": "v1,AAAA"}, 401),
        ({"webhook-signature": "v1,é"}, 401),
        ({"webhook-id": "another"}, 401),
        ({"webhook-timestamp": "1700000000"}, 401),
        ({"webhook-timestamp": "soon"}, 401),
    ],
)
def test_the_receiver_of_the_page_refuses_what_is_forged(
    receiver: Receiver, changed: dict[str, str], status: int
) -> None:
    body = encoded({"type": "base.published", "model": MODEL, "data": {}})
    form = WebhookFormat.COLDFUSION
    headers = headers_of("an id", datetime.now(UTC), body, [receiver.secret], form, None)
    sent = [(name.encode(), value.encode()) for name, value in {**headers, **changed}.items()]
    answer = httpx.post(receiver.url, content=body, headers=sent, trust_env=False, timeout=60)
    assert answer.status_code == status
    if status == 204:
        assert receiver.line().startswith(f"base.published {MODEL}")


def test_the_library_that_the_page_names_takes_it(receiver: Receiver) -> None:
    body = encoded({"type": "base.published"})
    form = WebhookFormat.COLDFUSION
    headers = headers_of("an id", datetime.now(UTC), body, [receiver.secret], form, None)
    names: dict[str, Any] = {"secret": receiver.secret, "body": body, "headers": headers}
    exec(parts(WEBHOOKS, "python")[0], names)
    assert names["event"] == {"type": "base.published"}


def test_the_webhooks_of_the_page_can_be_made(operator: Operator, receiver: Receiver) -> None:
    by_api, *pipelines, look = parts(WEBHOOKS, "sh")[1:]
    assert len(pipelines) == 3
    for script in (by_api, *pipelines):
        operator.shell(script)
    made = {one["url"]: one for one in operator.get("/webhooks")}
    github = made["https://api.github.com/repos/OWNER/REPOSITORY/dispatches"]
    assert (github["format"], github["has_authorization"]) == ("github", True)
    assert "https://gitlab.example.org/api/v4/projects/ID/ref/main/trigger/pipeline" in made
    assert made["https://jenkins.example.org/generic-webhook-trigger/invoke"]["has_authorization"]
    assert len(made) == 5 and "-token" not in json.dumps(made)

    delivered = f"/webhooks/{receiver.webhook}/deliveries"
    operator.ask("POST", f"/webhooks/{receiver.webhook}/ping")
    receiver.line()
    done = wait_until(lambda: _delivered(operator.get(delivered)["items"]), "its own note of it")
    told = operator.shell(look, ID=receiver.webhook, DELIVERY=done[0]["id"])
    assert "delivered" in told and "webhook.ping" in told


def _delivered(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    done = [item for item in items if item["state"] == "delivered"]
    return done if len(done) == len(items) else []


def test_the_token_of_the_page_reads_the_metrics(operator: Operator) -> None:
    script = parts(MONITORING, "sh")[0]
    assert "coldfusion_head_version" in operator.shell(script)
    assert (operator.home / "coldfusion.token").stat().st_mode & 0o777 == 0o600
    public = httpx.get(f"{operator.server.url}/metrics", trust_env=False, timeout=120)
    assert public.status_code in (401, 403)


def test_every_alert_stands_on_the_page() -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "coldfusion.rules.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert alerts == set(re.findall(r"`(Coldfusion[A-Za-z]+)`", MONITORING))
