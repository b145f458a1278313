"""A Repository of separate processes: the API, a scheduler and workers; each can be killed."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from coldfusion_server.db.database import Database
from coldfusion_server.db.migrate import migrate
from coldfusion_server.db.tables import LeaseRow
from coldfusion_server.services.context import open_context, utc_now
from coldfusion_server.services.models import create_model
from coldfusion_server.services.tokens import create_token
from coldfusion_server.settings import Settings, load_settings
from coldfusion_server.storage.s3.connection import S3Options
from coldfusion_shared.errors import DatabaseUnavailable
from coldfusion_shared.schemas.models import Policy
from coldfusion_shared.schemas.tokens import Role
from tests.faults.processes import Program
from tests.faults.stage import wait_for
from tests.ports import free_ports
from tests.server.repository import ANY_UPDATE, MODEL, tiny_folder

PEOPLE = ("ann", "bob", "cem")
WORKERS = 2
# It decides how soon the work of one that was killed is taken over.
LEASE_SECONDS = 1


@dataclass
class Fleet:
    """
    All processes of one Repository, and who uses it.

    Attributes:
        url: of the API.
        tokens: by name: three contributors, and max, a maintainer.
        database: that of all processes, past them.
        environment: their settings.
    """

    folder: Path
    url: str
    database: Database
    tokens: dict[str, str]
    environment: dict[str, str]
    programs: list[Program] = field(default_factory=list)

    @property
    def api(self) -> Program:
        return self.programs[0]

    @property
    def scheduler(self) -> Program:
        return self.programs[1]

    @property
    def workers(self) -> list[Program]:
        return self.programs[2:]

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    def program(self, name: str, *words: str) -> Program:
        """Return another program on the same data; it is killed with the others."""
        made = Program(name, words, self.environment, self.folder)
        self.programs.append(made)
        return made

    def die_at(self, program: Program, *points: str) -> None:
        """Start a program for each point in turn; it has to kill itself there."""
        for point in points:
            program.start(point)
            assert program.ended() == -signal.SIGKILL, point

    def mend(self) -> None:
        """Start what has ended, as a machine's service manager does."""
        for program in self.programs:
            if not program.alive:
                program.start()

    def await_api(self) -> None:
        """Wait until the API answers."""
        wait_for(self._answers, "the API")

    def recover(self) -> None:
        """Start what ends, until the API answers: a program does not stay where nothing is."""
        wait_for(self._recovers, "the API")

    def _recovers(self) -> bool:
        self.mend()
        return self._answers()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def works(self, program: Program) -> bool:
        """Return whether it has, or had when it died, a lease that has not run out."""
        query = select(LeaseRow.key).where(
            LeaseRow.holder.contains(f":{program.pid}:"), LeaseRow.expires_at > utc_now()
        )
        try:
            with self.database.read() as session:
                return session.scalars(query).first() is not None
        except DatabaseUnavailable:
            return False

    def ask(self, method: str, path: str, who: str = "max", **more: Any) -> httpx.Response:
        """Ask the API something, once."""
        headers = {"Authorization": f"Bearer {self.tokens[who]}", **more.pop("headers", {})}
        url = f"{self.url}/v1{path}"
        return httpx.request(method, url, headers=headers, trust_env=False, timeout=120, **more)

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the JSON at `path`."""
        return self.ask("GET", path, params=parameters).raise_for_status().json()

    def listed(self, path: str) -> list[dict[str, Any]]:
        """Return all of a list that comes in pages, oldest first."""
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = self.get(path, limit=200, **cursor)
            found += page["items"]
            if page["next_cursor"] is None:
                return found[::-1]
            cursor = {"cursor": page["next_cursor"]}

    def model(self, path: str = "") -> str:
        return f"/models/{MODEL}{path}"


@contextmanager
def fleet(
    folder: Path,
    database_url: str | None = None,
    store: S3Options | None = None,
    settings: Mapping[str, str] | None = None,
    **policy: Any,
) -> Iterator[Fleet]:
    """
    Make a Repository with one tiny model; nothing runs yet, and all of it is killed with the block.

    Args:
        folder: for all that is kept.
        database_url: of a database elsewhere.
        store: a bucket; null: the folder.
        settings: more of them, for all processes.
        policy: the model's; else every update is taken, for those of the tests are drawn.
    """
    (port,) = free_ports(1)
    values = {**_settings(folder, database_url, store), **(settings or {})}
    loaded = load_settings(**values)
    tokens = _prepared(folder, loaded, Policy(**{"screening": ANY_UPDATE, **policy}))
    environment = {f"COLDFUSION_{name.upper()}": value for name, value in values.items()}
    database = Database(loaded.database)
    made = Fleet(folder, f"http://127.0.0.1:{port}", database, tokens, environment)
    made.program("api", "up", "--no-worker", "--no-scheduler", "--port", str(port))
    made.program("scheduler", "scheduler")
    for number in range(WORKERS):
        made.program(f"worker-{number}", "worker")
    try:
        yield made
    finally:
        for program in made.programs:
            program.kill()
        database.close()


def _settings(folder: Path, database_url: str | None, store: S3Options | None) -> dict[str, str]:
    settings = {
        "data_dir": str(folder / "data"),
        "lease_seconds": str(LEASE_SECONDS),
        "scheduler_seconds": "0.1",
        "worker_seconds": "0.1",
        "min_free_bytes": "0",
    }
    if database_url is not None:
        settings["database_url"] = database_url
    if store is not None:
        given = {f"s3_{name}": str(value) for name, value in vars(store).items() if value}
        settings |= {"secret": secrets.token_hex(16), "signing_secret": secrets.token_hex(16)}
        settings |= given
    return settings


def _prepared(folder: Path, settings: Settings, policy: Policy) -> dict[str, str]:
    """Make database, model and people; return their tokens."""
    roles = {**dict.fromkeys(PEOPLE, Role.CONTRIBUTOR), "max": Role.MAINTAINER}
    context = open_context(settings)
    try:
        migrate(context.database)
        create_model(context, MODEL, tiny_folder(folder / "source"), "tests", policy, public=True)
        return {name: create_token(context, name, role, None)[0] for name, role in roles.items()}
    finally:
        context.close()
