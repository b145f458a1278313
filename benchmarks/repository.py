"""A Repository of real processes: API, scheduler and worker apart, each measured alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from benchmarks.measure import OFFLINE
from benchmarks.namespace import Namespace
from coldfusion_client.api import Api
from coldfusion_client.connection import Connection
from coldfusion_server.services.uploads import upload_key
from coldfusion_server.storage import ObjectStore
from coldfusion_server.storage.local import LocalStore
from coldfusion_server.storage.s3.connection import S3Options
from coldfusion_server.storage.s3.store import S3Store
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.schemas.rounds import Round

PROGRAMS = Path(sys.executable).parent
WAIT_SECONDS = 600
POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Repository:
    """
    A running Repository.

    Attributes:
        folder: its own; the data folder is in it.
        url: of the API.
        token: of a contributor.
        environment: of its programs, without what the API's process alone has.
        api: process id of the API.
        worker: process id of the worker.
        store: its objects, past the API.
    """

    folder: Path
    url: str
    token: str
    environment: dict[str, str]
    api: int
    worker: int
    store: ObjectStore

    def create_model(
        self, name: str, folder: Path, contributions: int = 1000, *, public: bool = False
    ) -> None:
        """Make a model of the transformers model in `folder`; a round takes so many."""
        few = ["--min-contributions", str(contributions), *["--public"] * public]
        command = ["model", "create", name, "--from", str(folder), *few]
        _call(command, self.folder, self.environment)

    def wait_stored(self, digest: str) -> float:
        """Wait until the worker has verified an upload and stored it; return the seconds."""
        started = time.perf_counter()
        while not self.store.exists(digest):
            _pause(started, f"the object {digest}")
        return time.perf_counter() - started

    def wait_accepted(self, contribution: str) -> float:
        """Wait until a contribution is accepted; return the seconds."""
        started = time.perf_counter()
        with Api(Connection(self.url, self.token)) as api:
            while (state := api.contribution(contribution).state) != ContributionState.ACCEPTED:
                if state != ContributionState.COMPLETED:
                    raise RuntimeError(f"The contribution {contribution} is {state}.")
                _pause(started, f"the verdict on {contribution}")
        return time.perf_counter() - started

    def wait_published(self, model: str, number: int) -> Round:
        """Wait until a round has published its base; return it."""
        started = time.perf_counter()
        with Api(Connection(self.url, self.token)) as api:
            while (found := api.round(model, number)).result is None:
                _pause(started, f"v{number}")
        return found

    def discard(self, contribution: str) -> None:
        """Remove what has arrived of an upload."""
        self.store.discard_upload(upload_key(contribution, 0))


@contextmanager
def running(
    folder: Path, bucket: S3Options | None = None, network: Namespace | None = None
) -> Iterator[Repository]:
    """Run a Repository in the new folder `folder`, with its API in `network`; it ends after."""
    folder.mkdir(parents=True)
    environment = _environment(folder, bucket)
    with ExitStack() as stack:
        log = stack.enter_context((folder / "log").open("a"))
        api = _Process(stack, *_api(folder, bucket, network, environment), log)
        url = api.until("coldfusion is up: ")
        token = _call(
            ["token", "create", "bench", "--role", "contributor"], folder, environment
        ).strip()
        workers = [
            _Process(stack, [str(PROGRAMS / "coldfusion-server"), name], environment, log)
            for name in ("scheduler", "worker")
        ]
        store = LocalStore(folder / "data") if bucket is None else S3Store(bucket)
        stack.callback(store.close)
        pids = api.process.pid, workers[1].process.pid
        yield Repository(folder, url, token, environment, *pids, store)


def _api(
    folder: Path, bucket: S3Options | None, network: Namespace | None, environment: dict[str, str]
) -> tuple[Sequence[str], dict[str, str]]:
    """Return the API's command and environment."""
    alone = ["--port", "0", "--no-worker", "--no-scheduler"]
    command = [str(PROGRAMS / "coldfusion-server"), "up", *alone]
    if network is None or bucket is None:
        return command, environment
    assert bucket.endpoint is not None
    inside = replace(bucket, endpoint=network.endpoint, public_endpoint=bucket.endpoint)
    command = [*network.prefix, *command, "--host", network.inside]
    return command, _environment(folder, inside)


def _environment(folder: Path, bucket: S3Options | None) -> dict[str, str]:
    settings = {
        **os.environ,
        **OFFLINE,
        "COLDFUSION_DATA_DIR": str(folder / "data"),
        # Peers leave their uploads unfinished.
        "COLDFUSION_QUOTA_UPLOADS": "10000",
        "COLDFUSION_QUOTA_DAY": "1000000",
        # What is measured polls far more often than people do.
        "COLDFUSION_RATE_PER_ADDRESS": "0",
        "COLDFUSION_RATE_PER_TOKEN": "0",
        "OMP_NUM_THREADS": "1",
    }
    given = {} if bucket is None else {name: value for name, value in vars(bucket).items() if value}
    return settings | {f"COLDFUSION_S3_{name.upper()}": str(value) for name, value in given.items()}


def _call(words: list[str], folder: Path, environment: dict[str, str]) -> str:
    command = [str(PROGRAMS / "coldfusion-server"), *words]
    with (folder / "log").open("a") as log:
        return subprocess.run(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            check=True,
            timeout=WAIT_SECONDS,
        ).stdout


class _Process:
    """A program that runs until the context ends."""

    def __init__(
        self,
        stack: ExitStack,
        command: Sequence[str],
        environment: dict[str, str],
        log: IO[str],
    ) -> None:
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
        stack.callback(self._end)

    def until(self, words: str) -> str:
        """Read what it says up to a line that begins with `words`, and return the line's rest."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(words):
                return line.removeprefix(words).strip()
        raise RuntimeError(f"{self.process.args!r} has ended.")

    def _end(self) -> None:
        assert self.process.stdout is not None
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def _pause(started: float, what: str) -> None:
    if time.perf_counter() - started > WAIT_SECONDS:
        raise RuntimeError(f"waited in vain for {what}")
    time.sleep(POLL_SECONDS)
