"""The hub's real clients, as processes of their own: they read HF_ENDPOINT once, at import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.serving import served
from tests.server.repository import Repository

ROOT = Path(__file__).parents[2]
# Of a busy machine: to import what they use takes some of them a minute alone.
WAIT_SECONDS = 900
# Major versions, and the folder that `make setup` puts an older one into, beside the newest.
NEWEST, ONE, OLD = "2", "1", "0.36"
FOLDERS = {NEWEST: None, ONE: "hub-1", OLD: "hub-0"}


@dataclass
class HubClient:
    """
    Somebody with a hub client of one major version.

    Attributes:
        endpoint: the Repository's URL.
        home: where the client keeps what it has got.
        version: one of `FOLDERS`.
        token: null: a visitor.
        settings: more variables of its environment.
    """

    endpoint: str
    home: Path
    version: str = NEWEST
    token: str | None = None
    settings: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program with the client's environment."""
        return subprocess.run(
            [str(word) for word in command],
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=WAIT_SECONDS,
            check=False,
        )

    def script(self, file: Path, *words: str | Path) -> Any:
        """Run a Python script that has to succeed, and return the JSON of its last line."""
        done = self.run(sys.executable, file, *words)
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    def hf(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run the hub's own command line, of the newest version."""
        return self.run(Path(sys.executable).parent / "hf", *words)

    @property
    def environment(self) -> dict[str, str]:
        """What it reads; nothing of whoever runs the tests."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        kept |= {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            # In place of 10 seconds for an answer.
            "HF_HUB_ETAG_TIMEOUT": "120",
            "HF_HUB_DOWNLOAD_TIMEOUT": "120",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_COLOR": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "PYTHONPATH": "" if FOLDERS[self.version] is None else str(folder_of(self.version)),
        }
        if self.token is not None:
            kept["HF_TOKEN"] = self.token
        return kept | self.settings


def folder_of(version: str) -> Path:
    """Return where an older version is installed; skips where it is not."""
    name = FOLDERS[version]
    assert name is not None, "the newest one is installed as usual"
    folder = Path(sys.prefix) / name
    if not (folder / "huggingface_hub").is_dir():
        pytest.skip(f"huggingface_hub {version}.x is not in {folder}: run make setup")
    return folder


@contextmanager
def door(repo: Repository, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve the Repository as it runs in life, and yield its URL, by `host`."""
    with served(repo.app, repo.settings) as web:
        yield f"http://{host}:{web.address[1]}"
