from __future__ import annotations

import errno
import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from coldfusion_client.bases import bring
from coldfusion_client.cache import Cache
from coldfusion_client.source import Source
from coldfusion_client.transfer import receiving
from coldfusion_client.transfer.changes import offered
from coldfusion_client.transfer.download import fetch
from coldfusion_client.transfer.partial import PartialFile
from coldfusion_shared import errors
from coldfusion_shared.schemas.bases import DIFFERENCE_BYTES, ParentBase
from tests.client.helpers import Notes
from tests.client.repository import MODEL, Repository, once, problem, ranged

FILES = "/files/"
# No two ranges of it are alike.
CONTENT = bytes(value for number in range(2560) for value in divmod(number, 256))
RANGE = 1024
STARTS = list(range(0, len(CONTENT), RANGE))


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "LONGEST_RANGE_BYTES", RANGE)


@pytest.fixture
def repository() -> Repository:
    return Repository({"model.safetensors": CONTENT})


def get(source: Source, repository: Repository, workers: int = 4) -> Path:
    manifest = repository.newest.manifest
    fetch(source.api, source.cache, manifest, manifest.files, source.reporter, workers)  # type: ignore[arg-type]
    return source.cache.object(manifest.files[0].sha256)


def asked(repository: Repository) -> list[str]:
    return [request.headers.get("Range", "") for request in repository.seen("GET", FILES)]


def cut(request: httpx.Request, after: int) -> httpx.Response:
    """The right answer, whose stream breaks after so many bytes."""
    whole = ranged(request, CONTENT)

    class Broken(httpx.SyncByteStream):
        def __iter__(self) -> Any:
            yield whole.content[:after]
            raise httpx.ReadError("connection reset")

    headers = {"Content-Range": whole.headers.get("Content-Range", "")}
    return httpx.Response(whole.status_code, stream=Broken(), headers=headers)


def at(pattern: str, *answers: Callable[[httpx.Request], httpx.Response]) -> Any:
    """A fault for requests whose Range matches; each answer once."""
    left = list(answers)

    def fault(request: httpx.Request) -> httpx.Response | None:
        wanted = request.method == "GET" and FILES in request.url.path
        if left and wanted and re.fullmatch(pattern, request.headers.get("Range", "")):
            return left.pop(0)(request)
        return None

    return fault


def test_a_file_is_fetched_in_ranges_and_once(
    source: Source, repository: Repository, notes: Notes
) -> None:
    path = get(source, repository)
    assert path.read_bytes() == CONTENT
    assert sorted(asked(repository)) == sorted(
        f"bytes={start}-{min(start + RANGE, len(CONTENT)) - 1}" for start in STARTS
    )
    assert path == get(source, repository)
    assert len(repository.seen("GET", FILES)) == len(STARTS)
    assert sum(notes.moved) == 2 * len(CONTENT)
    assert not any(source.cache.root.glob("partial/*"))


@pytest.mark.parametrize("size", [0, 1, RANGE - 1, RANGE, RANGE + 1, 3 * RANGE])
def test_files_of_all_sizes_arrive(source: Source, notes: Notes, size: int) -> None:
    repository = Repository({"a": CONTENT[:size]})
    source.api.connection._client._transport = httpx.MockTransport(repository.handle)
    assert get(source, repository).read_bytes() == CONTENT[:size]
    assert sum(notes.moved) == size


def test_many_files_are_fetched_side_by_side(source: Source, notes: Notes) -> None:
    repository = Repository({f"{n}.json": str(n).encode() * 9 for n in range(30)})
    together = threading.Barrier(4)

    def handle(request: httpx.Request) -> httpx.Response:
        together.wait(100)
        return repository.handle(request)

    source.api.connection._client._transport = httpx.MockTransport(handle)
    manifest = repository.newest.manifest
    entries = manifest.files[:28]
    fetch(source.api, source.cache, manifest, entries, notes, 4)
    assert all(source.cache.find(entry) for entry in entries)


def test_a_second_model_with_the_same_file_downloads_nothing(
    source: Source, repository: Repository, notes: Notes
) -> None:
    get(source, repository)
    repository.publish({"other/name.bin": CONTENT, "copy.bin": CONTENT})
    repository.requests.clear()
    bring(source, repository.newest.manifest)
    assert repository.requests == []


def test_two_files_of_the_same_content_are_downloaded_once(source: Source, notes: Notes) -> None:
    repository = Repository({"a": CONTENT[:RANGE], "b": CONTENT[:RANGE]})
    source.api.connection._client._transport = httpx.MockTransport(repository.handle)
    get(source, repository)
    assert len(repository.seen("GET", FILES)) == 1
    assert sum(notes.moved) == 2 * RANGE


def test_a_cut_range_goes_on_at_its_next_byte(
    source: Source, repository: Repository, notes: Notes
) -> None:
    repository.faults.append(
        at("bytes=1024-.*", lambda request: cut(request, 100), lambda request: cut(request, 0))
    )
    repository.faults.append(at("bytes=1124-.*", lambda request: cut(request, 50)))
    assert get(source, repository).read_bytes() == CONTENT
    resumed = [span for span in asked(repository) if span.endswith("-2047")]
    assert resumed == ["bytes=1024-2047", "bytes=1124-2047", "bytes=1174-2047"]
    assert sum(notes.moved) == len(CONTENT)


def test_a_shorter_range_than_asked_for_is_completed(
    source: Source, repository: Repository
) -> None:
    def short(request: httpx.Request) -> httpx.Response:
        span = {"Content-Range": f"bytes 2048-2100/{len(CONTENT)}"}
        return httpx.Response(206, content=CONTENT[2048:2101], headers=span)

    repository.faults.append(at("bytes=2048-.*", short))
    assert get(source, repository).read_bytes() == CONTENT
    assert "bytes=2101-3071" in asked(repository)


def test_what_a_killed_process_had_finished_is_not_fetched_again(
    source: Source, repository: Repository, notes: Notes
) -> None:
    entry = repository.newest.manifest.files[0]
    partial = PartialFile(source.cache.partial(entry.sha256), entry.size)
    partial.take_up()
    for start, end in ((3072, 4096), (0, 700)):
        with partial.writing_at(start) as file:
            file.write(CONTENT[start:end])
        partial.note(start, end)
    with partial.writing_at(2000) as file:
        file.write(b"not noted")
    assert source.cache.begun(entry) == 1724
    assert get(source, repository).read_bytes() == CONTENT
    assert sorted(asked(repository)) == [
        "bytes=1724-2747", "bytes=2748-3071", "bytes=4096-5119", "bytes=700-1723"
    ]  # fmt: skip
    assert sum(notes.moved) == len(CONTENT)


def test_what_an_older_client_began_is_taken_up(source: Source, repository: Repository) -> None:
    entry = repository.newest.manifest.files[0]
    partial = source.cache.partial(entry.sha256)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT[:4500])
    assert get(source, repository).read_bytes() == CONTENT
    assert asked(repository) == ["bytes=4500-5119"]


def test_a_damaged_half_is_thrown_away_once(
    source: Source, repository: Repository, notes: Notes
) -> None:
    entry = repository.newest.manifest.files[0]
    partial = source.cache.partial(entry.sha256)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 700)
    assert get(source, repository).read_bytes() == CONTENT
    assert "bytes=0-1023" in asked(repository)
    assert sum(notes.moved) == len(CONTENT)


def whole(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=CONTENT)


def wrong_start(request: httpx.Request) -> httpx.Response:
    span = {"Content-Range": f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"}
    return httpx.Response(206, content=CONTENT, headers=span)


def unnamed(request: httpx.Request) -> httpx.Response:
    return httpx.Response(206, content=CONTENT[:RANGE])


@pytest.mark.parametrize("answer", [whole, wrong_start, unnamed])
def test_a_server_that_does_not_know_ranges_sends_one_stream(
    source: Source,
    repository: Repository,
    notes: Notes,
    answer: Callable[[httpx.Request], httpx.Response],
) -> None:
    repository.faults.append(at("bytes=.*", *[answer] * 99))
    repository.faults.append(at("", lambda request: cut(request, 3000)))
    assert get(source, repository).read_bytes() == CONTENT
    assert asked(repository)[-2:] == ["", ""]
    assert sum(notes.moved) == len(CONTENT)


def test_a_proxy_that_compresses_gets_no_ranges(source: Source, repository: Repository) -> None:
    import gzip

    def compressed(request: httpx.Request) -> httpx.Response:
        answer = ranged(request, CONTENT)
        packed = gzip.compress(answer.content)
        headers = {**answer.headers, "Content-Encoding": "gzip", "Content-Length": str(len(packed))}
        return httpx.Response(answer.status_code, content=packed, headers=headers)

    repository.faults.append(at(".*", *[compressed] * 99))
    assert get(source, repository).read_bytes() == CONTENT


def test_wrong_bytes_are_refused_after_one_clean_retry(
    source: Source, repository: Repository, notes: Notes
) -> None:
    def wrong(request: httpx.Request) -> httpx.Response:
        return ranged(request, b"y" * len(CONTENT))

    repository.faults.append(at(".*", *[wrong] * 99))
    with pytest.raises(errors.DigestMismatch, match=r"model.safetensors of demo/tiny v0"):
        get(source, repository)
    assert len(repository.seen("GET", FILES)) == 2 * len(STARTS)
    assert source.cache.find(repository.newest.manifest.files[0]) is None
    assert not any(source.cache.root.glob("partial/*"))
    assert sum(notes.moved) == 0


def endless(request: httpx.Request) -> httpx.Response:
    class Endless(httpx.SyncByteStream):
        def __iter__(self) -> Any:
            while True:
                yield CONTENT

    answer = ranged(request, CONTENT)
    span = {"Content-Range": answer.headers.get("Content-Range", "")}
    return httpx.Response(answer.status_code, stream=Endless(), headers=span)


@pytest.mark.parametrize("ranges", [True, False])
def test_an_endless_body_does_not_fill_the_disk(
    source: Source, repository: Repository, ranges: bool
) -> None:
    if not ranges:
        repository.faults.append(at("bytes=.*", *[whole] * 99))
    repository.faults.append(at(".*", *[endless] * 99))
    with pytest.raises(errors.DigestMismatch):
        get(source, repository)
    assert not any(source.cache.root.glob("partial/*"))


def test_a_file_of_another_size_is_refused_at_once(source: Source, repository: Repository) -> None:
    def longer(request: httpx.Request) -> httpx.Response:
        return ranged(request, CONTENT + b"more")

    repository.faults.append(at(".*", *[longer] * 99))
    with pytest.raises(errors.DigestMismatch):
        get(source, repository, workers=1)
    assert len(repository.seen("GET", FILES)) == 2


def test_a_server_that_never_sends_all_is_given_up_and_a_second_call_goes_on(
    source: Source, repository: Repository, notes: Notes
) -> None:
    repository.faults.append(at("bytes=4096-.*", *[lambda request: cut(request, 0)] * 99))
    with pytest.raises(errors.ServerUnreachable) as caught:
        get(source, repository, workers=1)
    assert caught.value.hint
    repository.faults.clear()
    repository.requests.clear()
    assert get(source, repository).read_bytes() == CONTENT
    assert asked(repository) == ["bytes=4096-5119"]


def test_a_failure_of_one_file_ends_the_others(source: Source) -> None:
    repository = Repository({f"{n}.bin": CONTENT + bytes([n]) for n in range(20)})
    source.api.connection._client._transport = httpx.MockTransport(repository.handle)
    gone = problem(404, "file_not_found", "There is no such file.")
    repository.faults.append(lambda request: gone if request.url.path.endswith("/0.bin") else None)
    with pytest.raises(errors.FileNotInBase):
        get(source, repository)
    assert len(repository.seen("GET", FILES)) < 20 * len(STARTS)


def test_what_one_file_waits_for_ends_with_another_files_failure(
    source: Source,
) -> None:
    """A server that asks to come back in an hour does not hold up bad news."""
    repository = Repository({"a": CONTENT[:RANGE], "b": CONTENT[:9]})
    gone = problem(404, "file_not_found", "There is no such file.")
    waiting = threading.Event()

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/b"):
            waiting.wait(60)
            return gone
        waiting.set()
        return httpx.Response(503, headers={"Retry-After": "100"})

    source.api.connection._client._transport = httpx.MockTransport(handle)
    with pytest.raises(errors.FileNotInBase):
        get(source, repository)


def test_a_full_disk_is_said(
    source: Source, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(receiving, "write_all", full)
    with pytest.raises(errors.StorageFull, match="disk is full"):
        get(source, repository)


def test_only_what_is_missing_has_to_fit_on_the_disk(
    source: Source, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = repository.newest.manifest.files[0]
    partial = source.cache.partial(entry.sha256)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT[:4500])
    free = SimpleNamespace(free=700)
    monkeypatch.setattr("coldfusion_client.bases.shutil.disk_usage", lambda _: free)
    bring(source, repository.newest.manifest)
    assert source.cache.find(entry)


def test_each_range_asks_for_its_own_redirect(source: Source, repository: Repository) -> None:
    away: list[httpx.Request] = []

    def redirect(request: httpx.Request) -> httpx.Response | None:
        if request.url.host == "bucket.test":
            away.append(request)
            return ranged(request, CONTENT)
        if FILES not in request.url.path:
            return None
        place = f"https://bucket.test/object?signature={len(repository.requests)}"
        return httpx.Response(307, headers={"Location": place})

    repository.faults.append(redirect)
    assert get(source, repository).read_bytes() == CONTENT
    assert len({str(request.url) for request in away}) == len(STARTS)
    assert all(request.headers["Range"] for request in away)
    assert not any("Authorization" in request.headers for request in away)


@pytest.mark.parametrize(
    "body", ["<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", ""]
)
def test_an_expired_redirect_is_asked_for_again(
    source: Source, repository: Repository, body: str
) -> None:
    expired = once("GET", "/object", *[httpx.Response(403, text=body) for _ in range(2)])

    def redirect(request: httpx.Request) -> httpx.Response | None:
        if request.url.host == "bucket.test":
            return expired(request) or ranged(request, CONTENT)
        return httpx.Response(307, headers={"Location": "https://bucket.test/object"})

    repository.faults.append(redirect)
    assert get(source, repository, workers=1).read_bytes() == CONTENT


def test_a_redirect_that_is_always_refused_ends_soon(
    source: Source, repository: Repository
) -> None:
    denied = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"

    def redirect(request: httpx.Request) -> httpx.Response | None:
        if request.url.host == "bucket.test":
            return httpx.Response(403, text=denied)
        return httpx.Response(307, headers={"Location": "https://bucket.test/object?sign=secret"})

    repository.faults.append(redirect)
    with pytest.raises(errors.StorageUnavailable, match="Access Denied") as caught:
        get(source, repository, workers=1)
    assert "secret" not in caught.value.message
    assert len(repository.seen("GET", "/object")) == 3


def test_a_redirect_to_an_insecure_place_is_not_followed(tmp_path: Path) -> None:
    from coldfusion_client.api import Api
    from coldfusion_client.connection import Connection

    seen: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        return httpx.Response(307, headers={"Location": "http://bucket.test/object"})

    connection = Connection("https://repository.test", transport=httpx.MockTransport(handle))
    with (
        pytest.raises(errors.ServerError, match="from https to http://bucket.test"),
        Api(connection) as api,
        api.open_file(MODEL, "v0", "a"),
    ):
        pass
    assert seen == ["repository.test"]


def test_the_right_to_download_is_waited_for(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    waits: list[float] = []

    class GivenUp(Exception):
        pass

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            raise GivenUp

    with cache.lock("d" * 64), pytest.raises(GivenUp), cache.lock("d" * 64, sleep):
        pass
    assert len(waits) == 2


# Differences.


def test_a_server_that_knows_no_differences_is_asked_for_the_file(
    source: Source, repository: Repository
) -> None:
    large = Repository({"model.safetensors": bytes(DIFFERENCE_BYTES)})
    manifest = large.newest.manifest
    parent = ParentBase(version="v0", digest="0" * 64)
    later = manifest.model_copy(update={"parent": parent, "version": "v1"})
    # The fake one is such a server.
    assert offered(source.api, source.cache, later, later.files) == {}
    assert len(repository.seen("GET", "/differences")) == 1
    # What has no parent, or is small, is not asked about.
    assert offered(source.api, source.cache, manifest, manifest.files) == {}
    small = repository.newest.manifest.model_copy(update={"parent": parent})
    assert offered(source.api, source.cache, small, small.files) == {}
    assert len(repository.seen("GET", "/differences")) == 1
