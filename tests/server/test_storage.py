"""What every object store must do; one more store is one more line in the fixture."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coldfusion_server.storage import ObjectStore
from coldfusion_server.storage.local import ABANDONED_SECONDS, LocalStore
from coldfusion_shared.errors import DigestMismatch, StorageFull, StorageUnavailable
from coldfusion_shared.weights.checkpoint import ByteSource

NOWHERE = "0" * 64


@pytest.fixture(params=["local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return {"local": LocalStore}[request.param](tmp_path / "store")


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def put_part(store: ObjectStore, number: int, raw: bytes, upload: str = "up.0") -> str:
    writer = store.open_part(upload, number)
    writer.write(raw)
    return writer.commit()


def read_source(source: ByteSource, start: int, stop: int) -> bytes:
    buffer = bytearray(stop - start)
    source.read_into(start, memoryview(buffer))
    return bytes(buffer)


def read(store: ObjectStore, digest: str, start: int, stop: int) -> bytes:
    source = store.source(digest)
    try:
        return read_source(source, start, stop)
    finally:
        source.close()


class TestObjects:
    def test_an_object_comes_back_under_its_digest(self, store: ObjectStore) -> None:
        stored = store.put([b"one ", memoryview(b"two"), b""])
        assert (stored.sha256, stored.size) == (sha256(b"one two"), 7)
        assert store.exists(stored.sha256)
        assert store.size(stored.sha256) == 7
        source = store.source(stored.sha256)
        assert (source.size, read_source(source, 4, 7)) == (7, b"two")
        source.close()

    def test_an_empty_object_is_one(self, store: ObjectStore) -> None:
        stored = store.put([])
        assert (stored.sha256, stored.size) == (sha256(b""), 0)
        assert read(store, stored.sha256, 0, 0) == b""

    def test_the_same_bytes_again_change_nothing(self, store: ObjectStore, tmp_path: Path) -> None:
        first = store.put([b"same"])
        source = store.source(first.sha256)
        before = files(tmp_path)
        assert store.put([b"sa", b"me"]) == first
        assert files(tmp_path) == before
        assert read_source(source, 0, 4) == b"same"

    def test_of_writers_of_the_same_bytes_all_succeed(self, store: ObjectStore) -> None:
        results: list[str] = []
        threads = [
            threading.Thread(target=lambda: results.append(store.put([b"same" * 1000]).sha256))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [sha256(b"same" * 1000)] * 8

    def test_the_expected_digest_is_kept_and_another_is_not(
        self, store: ObjectStore, tmp_path: Path
    ) -> None:
        assert store.put([b"x"], expect=sha256(b"x")).size == 1
        before = files(tmp_path)
        with pytest.raises(DigestMismatch):
            store.put([b"y"], expect=sha256(b"x"))
        assert files(tmp_path) == before
        assert not store.exists(sha256(b"y"))

    def test_bytes_that_stop_coming_leave_nothing(self, store: ObjectStore, tmp_path: Path) -> None:
        def broken() -> Iterator[bytes]:
            yield b"begun"
            raise KeyboardInterrupt

        before = files(tmp_path)
        with pytest.raises(KeyboardInterrupt):
            store.put(broken())
        assert files(tmp_path) == before

    def test_what_is_not_there_is_said(self, store: ObjectStore) -> None:
        assert not store.exists(NOWHERE)
        for ask in (store.size, store.source):
            with pytest.raises(StorageUnavailable):
                ask(NOWHERE)

    def test_a_deleted_object_is_gone_and_may_be_deleted_again(self, store: ObjectStore) -> None:
        digest = store.put([b"x"]).sha256
        store.delete(digest)
        assert not store.exists(digest)
        store.delete(digest)
        store.delete(NOWHERE)

    def test_a_check_leaves_nothing(self, store: ObjectStore, tmp_path: Path) -> None:
        before = files(tmp_path)
        store.check()
        assert files(tmp_path) == before

    def test_free_room_is_a_number_or_unknown(self, store: ObjectStore) -> None:
        free = store.free_bytes()
        assert free is None or free > 0


class TestUploads:
    def test_parts_are_listed_and_read_in_order(self, store: ObjectStore) -> None:
        for number in (10, 2, 1):
            etag = put_part(store, number, str(number).encode() * number)
            assert etag == hashlib.md5(str(number).encode() * number).hexdigest()
        listed = store.parts("up.0")
        assert {number: part.size for number, part in listed.items()} == {1: 1, 2: 2, 10: 20}
        assert listed[1].etag == hashlib.md5(b"1").hexdigest()
        assert b"".join(store.read_upload("up.0")) == b"1" + b"22" + b"10" * 10

    def test_an_unknown_upload_has_no_parts(self, store: ObjectStore) -> None:
        assert store.parts("nobody.0") == {}
        assert list(store.read_upload("nobody.0")) == []
        assert store.pending_uploads() == []
        store.discard_upload("nobody.0")

    def test_a_part_counts_when_it_is_committed_and_not_before(
        self, store: ObjectStore, tmp_path: Path
    ) -> None:
        before = files(tmp_path)
        writer = store.open_part("up.0", 1)
        writer.write(b"half")
        assert store.parts("up.0") == {}
        writer.abort()
        writer.abort()
        assert files(tmp_path) == before

    def test_abort_after_commit_is_harmless(self, store: ObjectStore) -> None:
        writer = store.open_part("up.0", 1)
        writer.write(b"whole")
        writer.commit()
        writer.abort()
        assert store.parts("up.0")[1].size == 5

    def test_a_part_sent_again_replaces_the_first(self, store: ObjectStore) -> None:
        put_part(store, 1, b"first, and longer")
        put_part(store, 11, b"eleven")
        etag = put_part(store, 1, b"second")
        assert store.parts("up.0")[1].etag == etag
        assert b"".join(store.read_upload("up.0")) == b"secondeleven"

    def test_an_empty_part_is_one(self, store: ObjectStore) -> None:
        put_part(store, 1, b"")
        assert store.parts("up.0")[1].size == 0

    def test_uploads_are_apart_and_discarded_alone(self, store: ObjectStore) -> None:
        put_part(store, 1, b"a", "one.0")
        put_part(store, 1, b"b", "two.0")
        assert sorted(store.pending_uploads()) == ["one.0", "two.0"]
        store.discard_upload("one.0")
        store.discard_upload("one.0")
        assert store.parts("one.0") == {}
        assert store.pending_uploads() == ["two.0"]
        assert b"".join(store.read_upload("two.0")) == b"b"

    def test_an_object_made_of_an_upload_does_not_change_with_it(self, store: ObjectStore) -> None:
        put_part(store, 1, b"verified")
        stored = store.put(store.read_upload("up.0"), expect=sha256(b"verified"))
        put_part(store, 1, b"replaced")
        assert read(store, stored.sha256, 0, 8) == b"verified"

    def test_a_part_being_replaced_by_many_is_one_of_theirs(self, store: ObjectStore) -> None:
        threads = [
            threading.Thread(target=put_part, args=(store, 1, bytes([n]) * 100)) for n in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (part,) = store.parts("up.0").values()
        raw = b"".join(store.read_upload("up.0"))
        assert len(raw) == part.size == 100
        assert hashlib.md5(raw).hexdigest() == part.etag


# The local store's own.


def test_two_files_of_one_part_left_by_a_death_are_the_newer_one(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    etag = put_part(store, 1, b"older")
    folder = tmp_path / "uploads" / "up.0"
    os.utime(folder / f"1.{etag}", ns=(1, 1))
    newer = hashlib.md5(b"newer").hexdigest()
    (folder / f"1.{newer}").write_bytes(b"newer")
    assert store.parts("up.0")[1].etag == newer
    assert b"".join(store.read_upload("up.0")) == b"newer"


def test_cleaning_takes_what_was_abandoned_and_nothing_else(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    kept = store.put([b"kept"]).sha256
    old, new = tmp_path / "tmp" / "old", tmp_path / "tmp" / "new"
    for path in (old, new):
        path.write_bytes(b"half")
    before = time.time() - ABANDONED_SECONDS - 60
    os.utime(old, (before, before))
    store.clean()
    assert (old.exists(), new.exists(), store.exists(kept)) == (False, True, True)


def test_a_store_whose_folder_is_gone_says_so(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    for ask in (store.check, store.free_bytes, store.clean, store.pending_uploads):
        with pytest.raises(StorageUnavailable):
            ask()
    with pytest.raises(StorageUnavailable):
        store.put([b"x"])
    with pytest.raises(StorageUnavailable):
        store.open_part("up.0", 1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("block", [1000, 2**16, 2**20])
def test_a_full_disk_takes_no_half_object_and_goes_on_when_there_is_room(
    block: int, small_disk: Path
) -> None:
    store = LocalStore(small_disk)
    kept = store.put([b"kept"]).sha256
    before = files(small_disk)
    with pytest.raises(StorageFull):
        store.put(bytes([n % 256]) * block for n in range(2 * 2**20 // block + 1))
    assert files(small_disk) == before
    assert store.exists(kept)
    assert store.put([bytes(2**18)]).size == 2**18


@pytest.mark.parametrize("block", [1000, 2**16, 2**20])
def test_a_full_disk_takes_no_half_part_and_goes_on_when_there_is_room(
    block: int, small_disk: Path
) -> None:
    store = LocalStore(small_disk)
    writer = store.open_part("up.0", 1)
    with pytest.raises(StorageFull):
        for _ in range(2 * 2**20 // block + 1):
            writer.write(bytes(block))
        writer.commit()
    writer.abort()
    assert files(small_disk) == []
    assert store.parts("up.0") == {}
    put_part(store, 1, bytes(2**18))
    assert store.parts("up.0")[1].size == 2**18
