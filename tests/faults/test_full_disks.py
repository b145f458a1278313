"""A disk that is full: the client's while it downloads, the server's while a part arrives."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from coldfusion_client.cli.errors import DISK
from coldfusion_shared.weights.digests import file_sha256
from tests.faults.stage import MIB, MODEL, Stage, clean_end, stage, wait_for


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of its own at `folder`; skips where there cannot be one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all the room there is, to the last byte, as a neighbour may do; return the file."""
    junk = folder / "junk"
    with junk.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(2**16)):
            pass
    return junk


def test_a_disk_that_fills_up_while_a_client_downloads(on: Stage, tmp_path: Path) -> None:
    with disk(tmp_path / "cache", "40m") as cache:
        client = on.client(COLDFUSION_CACHE=str(cache / "objects"))
        on.wire.answers.allow(8 * MIB)
        process = client.start("pull", MODEL, "--out", "base")
        wait_for(on.wire.answers.closed.is_set, "half of the download")
        junk = fill(cache)
        on.wire.answers.allow(None)
        out, errors = process.communicate(timeout=300)
        assert process.returncode == DISK, errors
        assert "Traceback" not in errors
        junk.unlink()
        clean_end(client.run("pull", MODEL, "--out", "base"))
        large = "model.safetensors"
        assert file_sha256(client.home / "base" / large) == file_sha256(on.base / large)


def test_a_client_whose_disk_is_full_goes_on_when_there_is_room(on: Stage, tmp_path: Path) -> None:
    with disk(tmp_path / "cache", "16m") as cache:
        client = on.client(COLDFUSION_CACHE=str(cache / "objects"))
        said = clean_end(client.run("pull", MODEL, "--out", "base"), DISK)
        assert "17 MB left" in said and "COLDFUSION_CACHE" in said
        assert not (client.home / "base").exists()
        subprocess.run(["mount", "-o", "remount,size=64m", str(cache)], check=True)
        clean_end(client.run("pull", MODEL, "--out", "base"))
        large = "model.safetensors"
        assert file_sha256(client.home / "base" / large) == file_sha256(on.base / large)


@pytest.fixture
def small(middling: Path, tmp_path: Path) -> Iterator[Stage]:
    """A server on a disk with room for the base, one upload and what is put together of it."""
    with (
        disk(tmp_path / "disk", "96m") as folder,
        stage(folder, middling, None, settings={"COLDFUSION_MIN_FREE_BYTES": "0"}) as made,
    ):
        made.folder = tmp_path
        yield made


def test_a_server_whose_disk_fills_up_while_a_part_arrives(small: Stage) -> None:
    on = small
    client = on.client()
    push = ("push", MODEL, str(on.finetuned()), "--base", "v0", "--json")
    on.wire.sent.allow(8 * MIB)
    process = client.start(*push)
    wait_for(on.wire.sent.closed.is_set, "half of the upload")
    junk = fill(small.server.data_dir)
    on.wire.sent.allow(None)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == DISK, errors
    assert "Traceback" not in errors and ("full" in errors or "room" in errors)
    assert on.ask("GET", "/v1/whoami").status_code == 200
    junk.unlink()
    done = client.run(*push)
    clean_end(done)
    on.accepted(json.loads(done.stdout)["id"])
    assert on.temporary() == []
