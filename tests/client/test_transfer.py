from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from coldfusion_client.api import Api
from coldfusion_client.bases import Source
from coldfusion_client.cache import Cache
from coldfusion_client.connection import Connection
from coldfusion_client.patience import Patience
from coldfusion_client.transfer.download import fetch
from coldfusion_client.transfer.upload import upload
from coldfusion_shared import errors
from coldfusion_shared.schemas.contributions import Declaration
from coldfusion_shared.schemas.files import FileEntry
from tests.client.helpers import Notes
from tests.client.repository import MODEL, TOKEN, Repository, once, problem, served

FILES = "/files/"
CONTENT = bytes(range(256)) * 20


@pytest.fixture
def repository() -> Repository:
    return Repository({"model.safetensors": CONTENT}, part_size=500)


def get(source: Source, repository: Repository) -> Path:
    manifest = repository.newest.manifest
    return fetch(source.api, source.cache, manifest, manifest.files[0], source.reporter)  # type: ignore[arg-type]


def cut(content: bytes, start: int = 0) -> httpx.Response:
    """An answer whose stream breaks after `content`."""

    class Broken(httpx.SyncByteStream):
        def __iter__(self) -> Any:
            yield content
            raise httpx.ReadError("connection reset")

    status = 206 if start else 200
    span = {"Content-Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"} if start else {}
    return httpx.Response(status, stream=Broken(), headers=span)


def test_a_file_is_downloaded_once(source: Source, repository: Repository, notes: Notes) -> None:
    path = get(source, repository)
    assert path.read_bytes() == CONTENT
    assert path == get(source, repository)
    assert len(repository.seen("GET", FILES)) == 1
    assert sum(notes.moved) == 2 * len(CONTENT)


def test_a_cut_download_goes_on_where_it_stopped(
    source: Source, repository: Repository, notes: Notes
) -> None:
    repository.faults.append(once("GET", FILES, cut(CONTENT[:1000]), cut(CONTENT[1000:1500], 1000)))
    assert get(source, repository).read_bytes() == CONTENT
    ranges = [request.headers.get("Range") for request in repository.seen("GET", FILES)]
    assert ranges == [None, "bytes=1000-", "bytes=1500-"]
    assert sum(notes.moved) == len(CONTENT)


def test_a_killed_download_goes_on_where_it_stopped(source: Source, repository: Repository) -> None:
    entry = repository.newest.manifest.files[0]
    partial = source.cache.partial(entry.sha256)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT[:700])
    assert get(source, repository).read_bytes() == CONTENT
    assert repository.seen("GET", FILES)[0].headers["Range"] == "bytes=700-"
    assert not partial.exists()


def test_a_damaged_half_is_thrown_away_once(
    source: Source, repository: Repository, notes: Notes
) -> None:
    entry = repository.newest.manifest.files[0]
    partial = source.cache.partial(entry.sha256)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 700)
    assert get(source, repository).read_bytes() == CONTENT
    assert len(repository.seen("GET", FILES)) == 2
    assert sum(notes.moved) == len(CONTENT)


def test_a_server_without_ranges_sends_all_again(
    source: Source, repository: Repository, notes: Notes
) -> None:
    repository.faults.append(
        once("GET", FILES, cut(CONTENT[:1000]), httpx.Response(200, content=CONTENT))
    )
    assert get(source, repository).read_bytes() == CONTENT
    assert sum(notes.moved) == len(CONTENT)


def test_wrong_bytes_are_refused_after_one_clean_retry(
    source: Source, repository: Repository
) -> None:
    wrong = [httpx.Response(200, content=b"y" * len(CONTENT)) for _ in range(3)]
    repository.faults.append(once("GET", FILES, *wrong))
    with pytest.raises(errors.DigestMismatch, match="model.safetensors of demo/tiny v0"):
        get(source, repository)
    assert len(repository.seen("GET", FILES)) == 2
    assert source.cache.find(repository.newest.manifest.files[0]) is None
    assert not any(source.cache.root.glob("partial/*"))


def test_an_endless_body_does_not_fill_the_disk(source: Source, repository: Repository) -> None:
    repository.faults.append(
        once("GET", FILES, *(httpx.Response(200, content=CONTENT * 9) for _ in range(2)))
    )
    with pytest.raises(errors.DigestMismatch):
        get(source, repository)


def test_a_server_that_never_sends_all_is_given_up(source: Source, repository: Repository) -> None:
    repository.faults.append(once("GET", FILES, *(cut(b"") for _ in range(9))))
    with pytest.raises(errors.ServerUnreachable):
        get(source, repository)


def test_a_full_disk_is_said(
    source: Source, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(errors.StorageFull, match="disk is full"):
        get(source, repository)


def test_on_a_real_socket_short_bodies_are_noticed_and_resumed(tmp_path: Path) -> None:
    repository = Repository({"model.safetensors": CONTENT})
    lies = [
        httpx.Response(200, content=CONTENT[:999], headers={"Content-Length": str(len(CONTENT))}),
        httpx.Response(
            206, content=CONTENT[999:1200], headers={"Content-Range": "bytes 999-1199/5120"}
        ),
    ]
    repository.faults.append(once("GET", FILES, *lies))
    with served(repository.handle) as url:
        connection = Connection(url, TOKEN, patience=Patience(tries=3, first=0.001))
        source = Source(Api(connection), Cache(tmp_path / "c"), Notes())
        assert get(source, repository).read_bytes() == CONTENT
        connection.close()
    ranges = [request.headers.get("Range") for request in repository.seen("GET", FILES)]
    assert ranges == [None, "bytes=999-", "bytes=1200-"]


@pytest.fixture
def body(tmp_path: Path) -> Path:
    path = tmp_path / "body"
    path.write_bytes(CONTENT)
    return path


def send(api: Api, body: Path, notes: Notes, workers: int = 4) -> str:
    digest = hashlib.sha256(CONTENT).hexdigest()
    entry = FileEntry(path="model.safetensors", size=len(CONTENT), sha256=digest)
    declared = api.declare(MODEL, Declaration(base="v0", files=[entry]), "k" * 8)
    upload(api, declared.upload, body, notes, workers)
    return declared.contribution.id


PARTS = -(-len(CONTENT) // 500)


def test_all_parts_arrive(source: Source, repository: Repository, body: Path, notes: Notes) -> None:
    identity = send(source.api, body, notes)
    assert source.api.complete(identity).state == "completed"
    puts = repository.seen("PUT", "uploads")
    assert len(puts) == PARTS
    assert all("Authorization" not in put.headers for put in puts)
    assert {put.headers["Content-Length"] for put in puts} == {"500", str(len(CONTENT) % 500)}
    assert sum(notes.moved) == len(CONTENT)


def test_parts_that_are_there_are_not_sent_again(
    source: Source, repository: Repository, body: Path, notes: Notes
) -> None:
    identity = send(source.api, body, notes)
    del repository.parts[identity][2]
    repository.requests.clear()
    notes.moved.clear()
    send(source.api, body, notes)
    assert [put.url.path.split("/")[4] for put in repository.seen("PUT", "uploads")] == ["2"]
    assert sum(notes.moved) == len(CONTENT)


@pytest.mark.parametrize(
    "failure",
    [httpx.Response(503), httpx.Response(500, text="<html>"), httpx.WriteError("reset")],
)
def test_a_part_is_tried_again(
    source: Source,
    repository: Repository,
    body: Path,
    notes: Notes,
    failure: httpx.Response | Exception,
) -> None:
    repository.faults.append(once("PUT", "uploads", failure, failure))
    identity = send(source.api, body, notes)
    assert source.api.complete(identity).state == "completed"
    assert sum(notes.moved) == len(CONTENT)


def test_a_part_that_arrived_wrong_is_sent_again(
    source: Source, repository: Repository, body: Path, notes: Notes
) -> None:
    repository.faults.append(
        once("PUT", "uploads", httpx.Response(200, headers={"ETag": '"0123"'}))
    )
    identity = send(source.api, body, notes)
    assert source.api.complete(identity).state == "completed"
    assert sum(notes.moved) == len(CONTENT)


def test_expired_urls_are_renewed_once_for_all(
    source: Source, repository: Repository, body: Path, notes: Notes
) -> None:
    repository.faults.append(
        lambda request: (
            problem(403, "upload_refused", "The upload URL has expired.")
            if request.method == "PUT" and request.url.path.endswith("/1")
            else None
        )
    )
    identity = send(source.api, body, notes, workers=3)
    assert source.api.complete(identity).state == "completed"
    assert len(repository.seen("GET", "/upload$")) == 1


def test_urls_that_are_always_refused_end_it(
    source: Source, repository: Repository, body: Path, notes: Notes
) -> None:
    refused = problem(403, "upload_refused", "Wrong signature.")
    repository.faults.append(lambda request: refused if request.method == "PUT" else None)
    with pytest.raises(errors.UploadRefused, match="Wrong signature"):
        send(source.api, body, notes)


def test_a_server_that_is_gone_ends_it_and_a_second_call_goes_on(
    source: Source, repository: Repository, body: Path, notes: Notes
) -> None:
    arrived: list[str] = []

    def gone(request: httpx.Request) -> httpx.Response | None:
        if request.method != "PUT":
            return None
        if len(arrived) >= 3:
            raise httpx.ConnectError("Connection refused")
        arrived.append(request.url.path)
        return None

    repository.faults.append(gone)
    with pytest.raises(errors.ServerUnreachable) as caught:
        send(source.api, body, notes)
    assert "goes on where it stopped" in (caught.value.hint or "")
    repository.faults.clear()
    repository.requests.clear()
    identity = send(source.api, body, notes)
    assert len(repository.seen("PUT", "uploads")) == PARTS - 3
    assert source.api.complete(identity).state == "completed"


def test_a_full_server_ends_it_at_once(
    source: Source, repository: Repository, body: Path, notes: Notes
) -> None:
    full = problem(507, "storage_full", "The Repository has no room.")
    repository.faults.append(lambda request: full if request.method == "PUT" else None)
    with pytest.raises(errors.StorageFull):
        send(source.api, body, notes, workers=1)
    assert len(repository.seen("PUT", "uploads")) == 1


def test_a_file_that_shrinks_is_noticed(source: Source, body: Path, notes: Notes) -> None:
    body.write_bytes(CONTENT[:600])
    with pytest.raises(errors.DigestMismatch, match="shorter"):
        send(source.api, body, notes, workers=1)


def test_a_small_piece_at_a_time_is_read(
    source: Source, body: Path, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coldfusion_client.transfer.upload._BLOCK_BYTES", 64)
    send(source.api, body, notes)
    assert max(notes.moved) <= 64
