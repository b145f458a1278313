"""The community's moves, each made with the programs that everybody uses."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from examples.demo.data import Member
from examples.demo.processes import DemoFailed, Processes

MODEL = "demo/minilm"
PORT = 8000
PUBLISH_SECONDS = 120
POLL_SECONDS = 0.3

# One setting for everybody. A round of four takes each update by a quarter, so they train well.
TRAINING = {"--epochs": "2.5", "--lr": "3e-4", "--batch-size": "16", "--max-length": "48"}


@dataclass(frozen=True)
class Server:
    """The Repository that the demo runs, and how to speak to it as its admin."""

    url: str
    data_dir: Path
    http: httpx.Client

    def get(self, path: str) -> Any:
        """Return the JSON at ``/v1<path>``."""
        return self.http.get(f"/v1{path}").raise_for_status().json()

    def post(self, path: str, body: Any) -> None:
        """Send JSON to ``/v1<path>``."""
        self.http.post(f"/v1{path}", json=body).raise_for_status()


def start_server(processes: Processes, data_dir: Path) -> Server:
    """Start `coldfusion-server up` on its usual port, or on a free one if that is taken."""
    for port in (PORT, 0):
        command = ["coldfusion-server", "up", "--data-dir", str(data_dir), "--port", str(port)]
        process = processes.start("server", command, {})
        url = _url(process)
        if url is not None:
            token = processes.run("token", _token_command(data_dir, "demo", "admin"), {}).strip()
            headers = {"Authorization": f"Bearer {token}"}
            # No proxy stands between two programs on one machine.
            http = httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=30)
            return Server(url, data_dir, http)
    raise DemoFailed("The server did not start", processes.log_tail("server"))


def create_model(processes: Processes, server: Server, base: str, contributors: int) -> None:
    """Publish the pretrained model as v0; a round closes when all contributors are in."""
    command = ["coldfusion-server", "model", "create", MODEL, "--from", base, "--public"]
    command += ["--min-contributions", str(contributors), "--data-dir", str(server.data_dir)]
    processes.run("create", command, {})


def give_token(processes: Processes, server: Server, name: str, role: str) -> str:
    """Return a token for somebody."""
    return processes.run("token", _token_command(server.data_dir, name, role), {}).strip()


def contribute_all(
    processes: Processes,
    server: Server,
    members: list[Member],
    tokens: dict[str, str],
    work: Path,
    show: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Let every contributor finetune and contribute, at the same time; return their results."""
    round_number = server.get(f"/models/{MODEL}")["open_round"]
    running = {
        member.name: processes.start(
            f"round{round_number}-{member.name}",
            _contribute_command(member, work / "runs" / member.name / f"round{round_number}"),
            _environment(server, tokens[member.name], work / "home" / member.name),
        )
        for member in members
    }
    while any(process.poll() is None for process in running.values()):
        show(_progress(server, round_number, members))
        time.sleep(POLL_SECONDS)
    return [
        _result(processes, f"round{round_number}-{name}", process)
        for name, process in running.items()
    ]


def wait_for_base(server: Server, version: str, show: Callable[[str], None]) -> float:
    """Wait until the scheduler has closed the round and the worker has published the base.

    Returns the seconds from the round's closing to its publication.
    """
    end = time.monotonic() + PUBLISH_SECONDS
    while time.monotonic() < end:
        newest = server.get(f"/models/{MODEL}/rounds?limit=2")["items"]
        published = [item for item in newest if item["result"] == version]
        if published:
            return _seconds(published[0]["closed_at"], published[0]["finished_at"])
        show(f"fusing {version}")
        time.sleep(POLL_SECONDS)
    raise DemoFailed(f"{version} was not published in time", "")


def _url(process: subprocess.Popen[str]) -> str | None:
    """Read the address off the server's first line; null if it ended instead."""
    assert process.stdout is not None
    for line in process.stdout:
        if "http" in line:
            return line.rsplit(" ", 1)[-1].strip()
    return None


def _token_command(data_dir: Path, name: str, role: str) -> list[str]:
    return [
        "coldfusion-server", "token", "create", name, "--role", role, "--data-dir", str(data_dir)
    ]  # fmt: skip


def _contribute_command(member: Member, output: Path) -> list[str]:
    command = ["coldfusion-client", "contribute", MODEL, "--data", str(member.folder)]
    command += ["--dataset-name", member.dataset.name, "--output", str(output), "--json"]
    command += ["--no-early-stopping"]
    return command + [word for pair in TRAINING.items() for word in pair]


def _environment(server: Server, token: str, home: Path) -> dict[str, str]:
    """Give each contributor a configuration, a cache and a core of its own."""
    return {
        "COLDFUSION_SERVER": server.url,
        "COLDFUSION_TOKEN": token,
        "COLDFUSION_CONFIG": str(home / "config"),
        "COLDFUSION_CACHE": str(home / "cache"),
        "OMP_NUM_THREADS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }


def _progress(server: Server, round_number: int, members: list[Member]) -> str:
    items = server.get(f"/models/{MODEL}/contributions?round={round_number}")["items"]
    seen = {item["contributor"]: item for item in items}
    words = [f"{member.name} {_state(seen.get(member.name))}" for member in members]
    return f"round {round_number}: " + ", ".join(words)


def _state(item: dict[str, Any] | None) -> str:
    if item is None:
        return "finetunes"
    if item["state"] == "declared":
        return f"uploads {100 * item['uploaded_bytes'] // max(1, item['total_bytes'])}%"
    return str(item["state"])


def _result(processes: Processes, name: str, process: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = process.communicate()
    if process.returncode:
        raise DemoFailed(f"{name} ended with status {process.returncode}", processes.log_tail(name))
    result: dict[str, Any] = json.loads(output)
    return result


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
