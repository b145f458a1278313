"""A PostgreSQL server of the tests' own, where one is installed."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def _programs() -> Path | None:
    """Return the folder of initdb and pg_ctl, the newest if there are several."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    path = shutil.which("initdb")
    return found[-1].parent if found else Path(path).parent if path else None


@contextmanager
def server() -> Iterator[str]:
    """Run a server on a free port and yield the URL of its databases; skip where it cannot be."""
    pytest.importorskip("psycopg", reason="no PostgreSQL driver: pip install 'psycopg[binary]'")
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed here")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="coldfusion-pg-"))
    # The server refuses to run as root.
    user: dict[str, Any] = {"cwd": folder}
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        user["user"] = "postgres"
    data, log = folder / "data", folder / "log"
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    options += " -c full_page_writes=off -c synchronous_commit=off -c autovacuum=off"
    control = [programs / "pg_ctl", "-D", data, "-w", "-t", "30"]
    try:
        _call([programs / "initdb", "-D", data, "-A", "trust", "-U", "tests", "-N"], user)
        _call([*control, "-l", log, "-o", options, "start"], user)
        try:
            yield f"postgresql+psycopg://tests@127.0.0.1:{port}"
        finally:
            _call([*control, "-m", "immediate", "stop"], user)
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
        connection.execute(f"CREATE DATABASE {name}{copied}".encode())
        try:
            yield f"{url}/{name}"
        finally:
            # Also where a test has left connections open.
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
