"""The real programs, as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from coldfusion_server.storage.s3.connection import S3Options
from coldfusion_server.storage.s3.keys import object_key
from coldfusion_server.storage.s3.store import S3Store
from coldfusion_shared.weights.digests import file_entry
from tests.ports import free_ports

BIN = Path(sys.executable).parent
# The model of a module's own server; its rounds do not close.
MODEL = "lab/tiny"
WAIT_SECONDS = 300


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until `condition` is true and return its value."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}")


@dataclass
class Server:
    """
    `coldfusion-server up` on a data folder; it can be killed and started again.

    `store` and `database_url` name a bucket and a database elsewhere; `settings` are more variables
    of its environment, `options` more words of the command.
    """

    data_dir: Path
    store: S3Options | None = None
    database_url: str | None = None
    port: int = 0
    url: str = ""
    admin: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def start(self) -> None:
        log = (self.data_dir.parent / "server.log").open("a")
        command = [str(BIN / "coldfusion-server"), "up", "--data-dir", str(self.data_dir)]
        # Of the system's own choice it would be anybody's while the server is down.
        self.port = self.port or free_ports(1)[0]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port), *self.options],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=self.environment,
        )
        log.close()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "http" in line and not self.url:
                self.url = line.rsplit(" ", 1)[-1].strip()
            if line.strip().startswith("token"):
                self.admin = line.split()[1]
            if line.strip().startswith("stop"):
                return
        raise AssertionError((self.data_dir.parent / "server.log").read_text())

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None and self.process.stdout is not None
        self.process.send_signal(how)
        status = self.process.wait(120)
        self.process.stdout.close()
        return status

    def command(self, *words: str) -> str:
        """Run another coldfusion-server command on the same data."""
        return subprocess.run(
            [str(BIN / "coldfusion-server"), *words, "--data-dir", str(self.data_dir)],
            check=True,
            capture_output=True,
            text=True,
            env=self.environment,
        ).stdout.strip()

    def get(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.admin}"}
        answer = httpx.get(f"{self.url}/v1{path}", headers=headers, trust_env=False, timeout=120)
        return answer.raise_for_status().json()

    def object(self, sha256: str) -> Path:
        """Return a file with the bytes of a stored object, past the server."""
        if self.store is None:
            return self.data_dir / "objects" / "sha256" / sha256[:2] / sha256
        store = S3Store(self.store)
        copy = self.data_dir.parent / sha256
        with copy.open("wb") as file:
            for block in store.bucket.blocks(object_key(sha256), store.size(sha256)):
                file.write(block)
        store.close()
        return copy

    @property
    def environment(self) -> dict[str, str]:
        settings = dict(os.environ)
        if self.database_url is not None:
            settings["COLDFUSION_DATABASE_URL"] = self.database_url
        if self.store is not None:
            given = {name: value for name, value in vars(self.store).items() if value}
            settings |= {f"COLDFUSION_S3_{name.upper()}": str(v) for name, v in given.items()}
        return settings | self.settings


@dataclass
class Client:
    """A contributor's machine: a home of its own, a token of its own, `settings` of its own."""

    server: Server
    home: Path
    token: str
    settings: dict[str, str] = field(default_factory=dict)
    running: list[subprocess.Popen[str]] = field(default_factory=list, repr=False)

    def start(self, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [str(BIN / "coldfusion-client"), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.home,
            env={
                **os.environ,
                "COLDFUSION_SERVER": self.server.url,
                "COLDFUSION_TOKEN": self.token,
                "COLDFUSION_CONFIG": str(self.home / "config"),
                "COLDFUSION_CACHE": str(self.home / "cache"),
                "OMP_NUM_THREADS": "1",
                "NO_PROXY": "127.0.0.1",
                **self.settings,
            },
        )
        self.running.append(process)
        return process

    def end(self) -> None:
        """Leave nothing running, also where a test has failed."""
        for process in self.running:
            process.kill()
            process.communicate()

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*words)
        output, errors = process.communicate(timeout=WAIT_SECONDS)
        return subprocess.CompletedProcess(words, process.returncode, output, errors)

    def send_raw(self, model: str, base: str, file: Path) -> str:
        """Send a file as a contribution past all that the client checks; return its id."""
        http = httpx.Client(
            base_url=self.server.url,
            headers={"Authorization": f"Bearer {self.token}"},
            trust_env=False,
            timeout=120,
        )
        entry = file_entry(file, "model.safetensors").model_dump()
        declared = http.post(
            f"/v1/models/{model}/contributions",
            json={"base": base, "files": [entry]},
            headers={"Idempotency-Key": entry["sha256"]},
        )
        upload = declared.raise_for_status().json()["upload"]
        for part in upload["files"][0]["parts"]:
            start = (part["number"] - 1) * upload["files"][0]["part_size"]
            body = file.read_bytes()[start : start + part["size"]]
            httpx.put(part["url"], content=body, trust_env=False, timeout=120).raise_for_status()
        identity = str(upload["contribution"])
        http.post(f"/v1/contributions/{identity}/complete").raise_for_status()
        http.close()
        return identity

    def json(self, *words: str) -> Any:
        """Run a command that has to succeed, with ``--json``, and return what it says."""
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
