"""A PostgreSQL server of the tests' own, where one is installed."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_ports

# So long those who leave a database are waited for.
LEAVE_SECONDS = 120


def _programs() -> Path | None:
    """Return the folder of initdb and pg_ctl, the newest if there are several."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    path = shutil.which("initdb")
    return found[-1].parent if found else Path(path).parent if path else None


@cache
def is_installed() -> bool:
    """Return whether `server` can run one here."""
    return _programs() is not None and find_spec("psycopg") is not None


@dataclass(frozen=True)
class PostgresServer:
    """
    A server that can be killed and started again.

    Attributes:
        url: of its databases.
        control: the command that starts and stops it.
        start_options: what it is started with.
        user: as whom.
    """

    url: str
    control: list[str | Path]
    start_options: list[str | Path]
    user: dict[str, Any]

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        _call([*self.control, *self.start_options, "start"], self.user)

    def kill(self) -> None:
        """End it at once, with all its connections; what was committed is found again."""
        _call([*self.control, "-m", "immediate", "stop"], self.user)


@contextmanager
def server() -> Iterator[str]:
    """Run a server on a free port and yield the URL of its databases; skip where it cannot be."""
    # A crash of it would lose what was committed last; nobody lets it crash.
    with running("-c synchronous_commit=off") as made:
        yield made.url


@contextmanager
def running(*options: str) -> Iterator[PostgresServer]:
    """Run a server that can be killed, with further `options`; skip where it cannot be."""
    pytest.importorskip("psycopg", reason="no PostgreSQL driver: pip install 'psycopg[binary]'")
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed here")
    (port,) = free_ports(1)
    folder = Path(tempfile.mkdtemp(prefix="coldfusion-pg-"))
    # The server refuses to run as root.
    user: dict[str, Any] = {"cwd": folder}
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        user["user"] = "postgres"
    given = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    # Without statistics it takes small tables for large ones, and compiles queries for longer than
    # they run.
    given = " ".join([given, "-c full_page_writes=off -c autovacuum=off -c jit=off", *options])
    made = PostgresServer(
        f"postgresql+psycopg://tests@127.0.0.1:{port}",
        [programs / "pg_ctl", "-D", folder / "data", "-w", "-t", "300"],
        ["-l", folder / "log", "-o", given],
        user,
    )
    try:
        _call(
            [programs / "initdb", "-D", folder / "data", "-A", "trust", "-U", "tests", "-N"], user
        )
        made.start()
        try:
            yield made
        finally:
            made.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _call(command: list[Any], options: dict[str, Any]) -> None:
    done = subprocess.run(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stderr.decode()


@contextmanager
def database(url: str, template: str | None = None) -> Iterator[str]:
    """Make a database, empty or a copy of the one at `template`; yield its URL, then remove it."""
    import psycopg

    name = f"t{secrets.token_hex(6)}"
    copied = f" TEMPLATE {template.rsplit('/', 1)[1]}" if template else ""
    plain = url.replace("postgresql+psycopg", "postgresql") + "/postgres"
    with psycopg.connect(plain, autocommit=True) as connection:
        if template and connection.info.server_version >= 150000:
            # Twice as fast here as writing all through the log; older ones know nothing else.
            copied += " STRATEGY file_copy"
        _once_unused(connection, f"CREATE DATABASE {name}{copied}")
        try:
            yield f"{url}/{name}"
        finally:
            # Also where a test has left connections open.
            _once_unused(connection, f"DROP DATABASE {name} WITH (FORCE)")


def _once_unused(connection: Any, order: str) -> None:
    """Have a database made or removed; the server waits a few seconds for those who leave one."""
    from psycopg.errors import ObjectInUse

    until = time.monotonic() + LEAVE_SECONDS
    while True:
        try:
            connection.execute(order.encode())
            return
        except ObjectInUse:
            if time.monotonic() > until:
                raise
