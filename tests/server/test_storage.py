"""What every object store must do; one more store is one more line in the fixture."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from coldfusion_server.storage import ObjectStore, StoredObject
from coldfusion_server.storage.local import ABANDONED_SECONDS, LocalStore
from coldfusion_server.storage.s3.store import S3Store
from coldfusion_shared.errors import (
    DigestMismatch,
    MalformedWeights,
    StorageFull,
    StorageUnavailable,
    UploadIncomplete,
)
from coldfusion_shared.weights.checkpoint import ByteSource
from tests.s3.stores import MINUTE, Case, local_case, put_part, s3_case

NOWHERE = "0" * 64
MIB = 2**20


@pytest.fixture(params=["local", "moto", "rgw"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    found = (
        local_case(tmp_path / "store")
        if request.param == "local"
        else s3_case(request.getfixturevalue(request.param))
    )
    yield found
    found.store.close()


@pytest.fixture
def store(case: Case) -> ObjectStore:
    return case.store


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def md5(raw: bytes) -> str:
    return hashlib.md5(raw, usedforsecurity=False).hexdigest()


def again(store: ObjectStore) -> ObjectStore:
    """Return the same store as another process opens it."""
    if isinstance(store, LocalStore):
        return LocalStore(store.root)
    assert isinstance(store, S3Store)
    return S3Store(store.bucket.options)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


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

    def test_the_same_bytes_again_change_nothing(self, case: Case) -> None:
        store = case.store
        first = store.put([b"same"])
        source = store.source(first.sha256)
        before = case.everything()
        assert store.put([b"sa", b"me"]) == first
        assert case.everything() == before
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

    def test_the_expected_digest_is_kept_and_another_is_not(self, case: Case) -> None:
        store = case.store
        assert store.put([b"x"], expect=sha256(b"x")).size == 1
        before = case.everything()
        with pytest.raises(DigestMismatch):
            store.put([b"y"], expect=sha256(b"x"))
        assert case.everything() == before
        assert not store.exists(sha256(b"y"))

    @pytest.mark.parametrize("begun", [b"begun", bytes(20 * MIB)], ids=["little", "much"])
    def test_bytes_that_stop_coming_leave_nothing(self, case: Case, begun: bytes) -> None:
        def broken() -> Iterator[bytes]:
            yield begun
            raise KeyboardInterrupt

        before = case.everything()
        with pytest.raises(KeyboardInterrupt):
            case.store.put(broken())
        assert case.everything() == before

    def test_a_large_object_comes_bit_by_bit(self, case: Case) -> None:
        raw = random.Random(4).randbytes(41 * MIB + 17)
        writer = case.store.open_object()
        for start in range(0, len(raw), 3 * MIB + 5):
            writer.write(memoryview(raw)[start : start + 3 * MIB + 5])
        writer.finish()
        stored = writer.commit(expect=sha256(raw))
        writer.abort()
        assert stored.size == len(raw) == case.store.size(stored.sha256)
        assert len(case.everything()) == 1
        assert read(case.store, stored.sha256, 0, len(raw)) == raw

    def test_any_range_can_be_read_by_many(self, store: ObjectStore) -> None:
        rng = random.Random(5)
        raw = rng.randbytes(3 * MIB + 11)
        source = store.source(store.put([raw]).sha256)
        spans = [sorted((rng.randrange(len(raw)), rng.randrange(len(raw)))) for _ in range(64)]
        with ThreadPoolExecutor(4) as pool:
            for (start, stop), got in zip(
                spans, pool.map(lambda span: read_source(source, *span), spans), strict=True
            ):
                assert got == raw[start:stop]
        with pytest.raises(MalformedWeights):
            read_source(source, len(raw) - 1, len(raw) + 1)
        source.close()

    def test_all_objects_are_listed_with_when_they_were_stored(self, store: ObjectStore) -> None:
        before = datetime.now(UTC) - timedelta(seconds=2)
        stored = {store.put([bytes([n]) * n]).sha256: n for n in range(5)}
        listed = list(store.objects())
        assert {item.sha256: item.size for item in listed} == stored
        assert all(before <= item.stored_at for item in listed)

    def test_storing_the_same_again_is_noted(self, store: ObjectStore) -> None:
        store.put([b"twice"])
        (first,) = store.objects()
        time.sleep(1.1)  # S3 tells seconds
        store.put([b"twice"])
        (second,) = store.objects()
        assert second.stored_at > first.stored_at
        # A HEAD tells whole seconds.
        asked = store.stored_at(second.sha256)
        assert asked is not None and abs(asked - second.stored_at) < timedelta(seconds=1)
        assert store.stored_at("0" * 64) is None

    def test_clients_are_sent_to_a_file_or_a_url(self, store: ObjectStore) -> None:
        digest = store.put([b"to be fetched"]).sha256
        path, url = store.local_path(digest), store.object_url(digest, MINUTE, "model.bin")
        if url is None:
            assert path is not None and path.read_bytes() == b"to be fetched"
            return
        assert path is None
        whole = httpx.get(url, timeout=120)
        assert whole.content == b"to be fetched"
        assert "model.bin" in whole.headers["Content-Disposition"]
        part = httpx.get(url, headers={"Range": "bytes=6-"}, timeout=120)
        assert (part.status_code, part.content) == (206, b"fetched")

    def test_the_first_owner_stays(self, store: ObjectStore) -> None:
        names = [f"owner {n}" for n in range(6)]
        with ThreadPoolExecutor(6) as pool:
            owners = set(pool.map(store.claim, names))
        assert len(owners) == 1 and owners < set(names)
        assert {store.claim("somebody else")} == owners

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

    def test_a_check_leaves_nothing(self, case: Case) -> None:
        before = case.everything()
        case.store.check()
        assert case.everything() == before

    def test_free_room_is_a_number_or_unknown(self, store: ObjectStore) -> None:
        free = store.free_bytes()
        assert free is None or free > 0


class TestUploads:
    def test_parts_are_listed_and_become_one_object_in_order(self, store: ObjectStore) -> None:
        unit = store.min_part_bytes
        parts = {number: bytes([number]) * (unit + number) for number in (10, 2, 1)}
        for number, raw in parts.items():
            assert put_part(store, number, raw) == md5(raw)
        listed = store.parts("up.0")
        assert {number: part.size for number, part in listed.items()} == {
            1: unit + 1,
            2: unit + 2,
            10: unit + 10,
        }
        assert listed[1].etag == md5(parts[1])
        whole = parts[1] + parts[2] + parts[10]
        verified: list[int] = []
        stored = store.adopt("up.0", sha256(whole), verified.append)
        assert stored == StoredObject(sha256(whole), len(whole))
        assert sum(verified) == len(whole)
        assert read(store, stored.sha256, 0, len(whole)) == whole

    def test_an_unknown_upload_has_no_parts(self, store: ObjectStore) -> None:
        assert store.parts("nobody.0") == {}
        assert store.pending_uploads() == []
        store.discard_upload("nobody.0")
        with pytest.raises(UploadIncomplete):
            store.adopt("nobody.0", NOWHERE)

    def test_a_part_sent_again_replaces_the_first(self, store: ObjectStore) -> None:
        unit = store.min_part_bytes
        put_part(store, 1, b"first, and longer" * unit)
        put_part(store, 11, b"eleven")
        again = b"s" * unit
        assert store.parts("up.0")[1].etag != put_part(store, 1, again)
        assert store.parts("up.0")[1].etag == md5(again)
        store.adopt("up.0", sha256(again + b"eleven"))

    def test_an_empty_part_is_one(self, store: ObjectStore) -> None:
        put_part(store, 1, b"")
        assert store.parts("up.0")[1].size == 0
        assert store.adopt("up.0", sha256(b"")).size == 0

    def test_uploads_are_apart_and_discarded_alone(self, store: ObjectStore) -> None:
        put_part(store, 1, b"a", "one.0")
        put_part(store, 1, b"b", "two.0")
        assert sorted(store.pending_uploads()) == ["one.0", "two.0"]
        store.discard_upload("one.0")
        store.discard_upload("one.0")
        assert store.parts("one.0") == {}
        assert store.pending_uploads() == ["two.0"]
        assert store.adopt("two.0", sha256(b"b")).size == 1

    def test_a_key_that_begins_like_another_is_another(self, store: ObjectStore) -> None:
        put_part(store, 1, b"a", "up.1")
        put_part(store, 1, b"bb", "up.11")
        assert store.parts("up.1")[1].size == 1
        store.discard_upload("up.1")
        assert store.parts("up.11")[1].size == 2

    def test_other_bytes_than_declared_make_no_object(self, case: Case) -> None:
        put_part(case.store, 1, b"other bytes")
        for _ in range(2):
            with pytest.raises(DigestMismatch):
                case.store.adopt("up.0", sha256(b"declared"))
        assert list(case.store.objects()) == []
        case.store.discard_upload("up.0")
        assert case.everything() == []

    def test_making_an_object_of_an_upload_can_be_repeated(self, case: Case) -> None:
        put_part(case.store, 1, b"verified")
        first = case.store.adopt("up.0", sha256(b"verified"))
        assert case.store.adopt("up.0", sha256(b"verified")) == first
        assert case.store.pending_uploads() == ["up.0"]
        case.store.discard_upload("up.0")
        assert len(case.everything()) == 1
        assert read(case.store, first.sha256, 0, 8) == b"verified"

    def test_an_upload_that_the_store_gave_up_begins_anew(self, case: Case) -> None:
        put_part(case.store, 1, b"lost")
        again(case.store).discard_upload("up.0")
        assert case.store.parts("up.0") == {}
        put_part(case.store, 1, b"sent again")
        assert case.store.adopt("up.0", sha256(b"sent again")).size == 10

    def test_what_one_process_begins_anew_another_that_remembers_the_old_goes_on_with(
        self, case: Case
    ) -> None:
        one, two, worker = (again(case.store) for _ in range(3))
        put_part(one, 1, b"lost")
        assert two.parts("up.0")[1].size == 4
        if isinstance(worker, S3Store):  # as the bucket's own rules do
            for item in list(worker.bucket.multiparts("uploads/up.0")):
                worker.bucket.abort(item.key, item.upload_id)
        assert set(one.parts("up.0")) <= {1}
        put_part(one, 1, b"sent again")
        for other in (two, one, two):
            assert other.parts("up.0")[1].size == 10
        put_part(two, 2, b", the rest")
        whole = b"sent again, the rest"
        if one.min_part_bytes == 1:
            assert worker.adopt("up.0", sha256(whole)).size == len(whole)
        worker.discard_upload("up.0")
        assert case.store.pending_uploads() == []
        for other in (one, two, worker):
            other.close()

    def test_an_object_made_of_an_upload_does_not_change_with_it(self, store: ObjectStore) -> None:
        urls = store.part_urls("up.0", {1: 8}, MINUTE)
        put_part(store, 1, b"verified")
        stored = store.adopt("up.0", sha256(b"verified"))
        if urls is None:
            put_part(store, 1, b"replaced")
        else:
            httpx.put(urls[1], content=b"replaced", timeout=120)
        assert read(store, stored.sha256, 0, 8) == b"verified"

    def test_a_part_being_replaced_by_many_is_one_of_theirs(self, store: ObjectStore) -> None:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda n: put_part(store, 1, bytes([n]) * 100), range(6)))
        (part,) = store.parts("up.0").values()
        (raw,) = [raw for n in range(6) if md5(raw := bytes([n]) * 100) == part.etag]
        assert store.adopt("up.0", sha256(raw)).size == part.size == 100

    def test_processes_that_begin_one_upload_at_once_share_it(self, case: Case) -> None:
        others = [again(case.store) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda pair: put_part(pair[1], pair[0] + 1, b"x"), enumerate(others)))
        assert set(case.store.parts("up.0")) == {1, 2, 3, 4}
        case.store.discard_upload("up.0")
        assert case.everything() == []
        for other in others:
            other.close()


# The local store's own.


def test_a_part_counts_when_it_is_committed_and_not_before(tmp_path: Path) -> None:
    case = local_case(tmp_path)
    writer = case.store.open_part("up.0", 1)
    writer.write(b"half")
    assert case.store.parts("up.0") == {}
    writer.abort()
    writer.abort()
    assert case.everything() == []


def test_abort_after_commit_is_harmless(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    writer = store.open_part("up.0", 1)
    writer.write(b"whole")
    writer.commit()
    writer.abort()
    assert store.parts("up.0")[1].size == 5


def test_a_part_with_another_checksum_is_not_kept(tmp_path: Path) -> None:
    case = local_case(tmp_path)
    writer = case.store.open_part("up.0", 1)
    writer.write(b"damaged")
    with pytest.raises(DigestMismatch):
        writer.commit(md5(b"as it was sent"))
    writer.abort()
    assert case.everything() == []


def test_two_files_of_one_part_left_by_a_death_are_the_newer_one(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    etag = put_part(store, 1, b"older")
    folder = tmp_path / "uploads" / "up.0"
    os.utime(folder / f"1.{etag}", ns=(1, 1))
    newer = hashlib.md5(b"newer").hexdigest()
    (folder / f"1.{newer}").write_bytes(b"newer")
    assert store.parts("up.0")[1].etag == newer
    assert store.adopt("up.0", sha256(b"newer")).size == 5


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
