from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coldfusion_client import place as placing
from coldfusion_client.cache import Cache, default_cache
from coldfusion_client.disk import write_atomically
from coldfusion_client.lock import locked
from coldfusion_client.place import place
from coldfusion_shared.schemas.files import FileEntry
from tests.client.repository import Repository

DATA = b"weights" * 100


def entry(data: bytes = DATA) -> FileEntry:
    return FileEntry(
        path="model.safetensors", size=len(data), sha256=hashlib.sha256(data).hexdigest()
    )


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    cache = Cache(tmp_path / "cache")
    new = tmp_path / "new"
    new.write_bytes(DATA)
    cache.adopt(entry().sha256, new)
    return cache


def test_objects_lie_under_their_digest(cache: Cache) -> None:
    digest = entry().sha256
    assert cache.find(entry()) == cache.root / "objects" / "sha256" / digest[:2] / digest
    assert cache.find(entry(b"other")) is None


def test_an_object_that_was_written_to_is_dropped(cache: Cache) -> None:
    cache.object(entry().sha256).write_bytes(b"WEIGHTS" * 100)
    assert cache.find(entry()) is None
    assert not cache.object(entry().sha256).exists()


def test_an_object_that_was_only_touched_is_kept(cache: Cache) -> None:
    os.utime(cache.object(entry().sha256), (1, 1))
    assert cache.find(entry())
    assert cache.find(entry())


def test_an_object_without_a_stamp_is_hashed(cache: Cache) -> None:
    next(cache.root.rglob("*.stamp")).unlink()
    assert cache.find(entry())


def test_the_folder_of_a_base_can_be_read(cache: Cache, tmp_path: Path) -> None:
    repository = Repository({"model.safetensors": DATA})
    folder = cache.folder(repository.newest.manifest)
    assert (folder / "model.safetensors").read_bytes() == DATA
    assert cache.folder(repository.newest.manifest) == folder
    assert cache.object(entry().sha256).stat().st_nlink == 1


def test_a_big_file_is_linked_to_one_folder_and_copied_to_others(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "SMALL_BYTES", 10)
    monkeypatch.setattr(placing, "_clone", lambda *_: False)
    source, first, second = cache.object(entry().sha256), tmp_path / "1", tmp_path / "2"
    place(source, first)
    place(source, second)
    assert first.samefile(source)
    assert not second.samefile(source)
    # Training code saves over the file that it has loaded.
    first.write_bytes(b"finetuned")
    assert second.read_bytes() == DATA
    assert cache.find(entry()) is None


def test_a_small_file_is_copied(cache: Cache, tmp_path: Path) -> None:
    place(cache.object(entry().sha256), tmp_path / "1")
    assert not (tmp_path / "1").samefile(cache.object(entry().sha256))


def test_what_cannot_be_linked_is_copied(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(placing, "SMALL_BYTES", 10)
    monkeypatch.setattr(os, "link", refuse)
    place(cache.object(entry().sha256), tmp_path / "1")
    assert (tmp_path / "1").read_bytes() == DATA


def test_the_cache_lies_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert default_cache().root == tmp_path / "cache"
    monkeypatch.delenv("COLDFUSION_CACHE")
    assert default_cache().root.name == "coldfusion"


def test_a_lock_is_given_back_by_a_process_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = (
        "import sys, time, pathlib; from coldfusion_client.lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), wait=False): print('held', flush=True);"
        " time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        holder.stdout.readline()
        with pytest.raises(BlockingIOError), locked(path, wait=False):
            pass
        holder.kill()
    with locked(path, wait=True):
        pass


def test_a_write_that_fails_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(_: int) -> None:
        raise OSError("broken disk")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="broken disk"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.glob(".*")) == []
