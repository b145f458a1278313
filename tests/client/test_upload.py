from __future__ import annotations

import hashlib
from pathlib import Path

import httpx
import pytest

from coldfusion_client.api import Api
from coldfusion_client.source import Source
from coldfusion_client.transfer.upload import upload
from coldfusion_shared import errors
from coldfusion_shared.schemas.contributions import Declaration, UploadPlan
from coldfusion_shared.schemas.files import FileEntry
from tests.client.helpers import Notes
from tests.client.repository import MODEL, NOW, Repository, once, problem

CONTENT = bytes(range(256)) * 20


@pytest.fixture
def repository() -> Repository:
    return Repository({"model.safetensors": CONTENT}, part_size=500)


@pytest.fixture
def body(tmp_path: Path) -> Path:
    path = tmp_path / "body"
    path.write_bytes(CONTENT)
    return path


def declare(api: Api) -> UploadPlan:
    digest = hashlib.sha256(CONTENT).hexdigest()
    entry = FileEntry(path="model.safetensors", size=len(CONTENT), sha256=digest)
    return api.declare(MODEL, Declaration(base="v0", files=[entry]), "k" * 8).upload


def send(api: Api, body: Path, notes: Notes, workers: int = 4) -> str:
    plan = declare(api)
    upload(api, plan, {"model.safetensors": body}, notes, workers)
    return plan.contribution


PARTS = -(-len(CONTENT) // 500)


def test_all_parts_arrive(source: Source, repository: Repository, body: Path, notes: Notes) -> None:
    identity = send(source.api, body, notes)
    assert source.api.complete(identity).state == "completed"
    puts = repository.seen("PUT", "uploads")
    assert len(puts) == PARTS
    assert all("Authorization" not in put.headers for put in puts)
    assert {put.headers["Content-Length"] for put in puts} == {"500", str(len(CONTENT) % 500)}
    assert not any("Transfer-Encoding" in put.headers or "Cookie" in put.headers for put in puts)
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


DAMAGED = [
    problem(400, "digest_mismatch", "The part is not what its Content-MD5 says."),
    httpx.Response(400, text="<Error><Code>BadDigest</Code><Message>Bad.</Message></Error>"),
    httpx.Response(400, text="<Error><Code>InvalidDigest</Code></Error>"),
]


@pytest.mark.parametrize("answer", DAMAGED)
def test_a_part_that_arrived_wrong_is_sent_again(
    source: Source, repository: Repository, body: Path, notes: Notes, answer: httpx.Response
) -> None:
    repository.faults.append(once("PUT", "uploads", answer))
    identity = send(source.api, body, notes)
    assert source.api.complete(identity).state == "completed"
    assert len(repository.seen("PUT", "uploads")) == PARTS + 1
    assert sum(notes.moved) == len(CONTENT)


@pytest.mark.parametrize("answer", DAMAGED)
def test_a_part_that_never_arrives_right_is_given_up(
    source: Source, repository: Repository, body: Path, notes: Notes, answer: httpx.Response
) -> None:
    repository.faults.append(lambda request: answer if request.method == "PUT" else None)
    with pytest.raises(errors.DigestMismatch):
        send(source.api, body, notes, workers=1)
    assert sum(notes.moved) == 0


def test_an_upload_that_is_gone_is_planned_anew(
    source: Source, repository: Repository, body: Path, notes: Notes
) -> None:
    gone = "<Error><Code>NoSuchUpload</Code><Message>It does not exist.</Message></Error>"
    repository.faults.append(once("PUT", "/3/1$", httpx.Response(404, text=gone)))
    identity = send(source.api, body, notes)
    assert source.api.complete(identity).state == "completed"
    assert len(repository.seen("GET", "/upload$")) == 1


def test_a_new_plan_of_other_parts_is_left_to_the_caller(
    source: Source, repository: Repository, body: Path, notes: Notes
) -> None:
    def refuse(request: httpx.Request) -> httpx.Response | None:
        repository.part_size = 1000
        return problem(403, "upload_refused") if request.method == "PUT" else None

    declared = declare(source.api)
    repository.faults.append(refuse)
    with pytest.raises(errors.UploadIncomplete):
        upload(source.api, declared, {"model.safetensors": body}, notes, 1)


def test_parts_follow_redirects_and_are_sent_again(
    source: Source, repository: Repository, body: Path, notes: Notes
) -> None:
    def redirect(request: httpx.Request) -> httpx.Response | None:
        if request.method != "PUT" or request.url.host == "region.test":
            return None
        return httpx.Response(307, headers={"Location": f"http://region.test{request.url.path}"})

    repository.faults.append(redirect)
    identity = send(source.api, body, notes)
    assert source.api.complete(identity).state == "completed"
    assert sum(notes.moved) == len(CONTENT)


def test_parts_are_not_sent_around_in_circles(
    source: Source, repository: Repository, body: Path, notes: Notes
) -> None:
    repository.faults.append(
        lambda request: (
            httpx.Response(307, headers={"Location": str(request.url)})
            if request.method == "PUT"
            else None
        )
    )
    with pytest.raises(errors.ServerError, match="circles"):
        send(source.api, body, notes, workers=1)
    assert len(repository.seen("PUT", "uploads")) == 5


def test_a_redirect_without_a_place_is_no_success(
    source: Source, repository: Repository, body: Path, notes: Notes
) -> None:
    moved = "<Error><Code>PermanentRedirect</Code><Message>Use another endpoint.</Message></Error>"
    repository.faults.append(
        lambda request: httpx.Response(301, text=moved) if request.method == "PUT" else None
    )
    with pytest.raises(errors.StorageUnavailable, match="Use another endpoint"):
        send(source.api, body, notes)


def test_several_files_share_the_workers(
    source: Source, repository: Repository, tmp_path: Path, notes: Notes
) -> None:
    other = CONTENT[::-1]
    files = {"model.safetensors": CONTENT, "adapter/extra.bin": other}
    plans = []
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
        entry = FileEntry(
            path="model.safetensors", size=len(content), sha256=hashlib.sha256(content).hexdigest()
        )
        declared = source.api.declare(MODEL, Declaration(base="v0", files=[entry]), name * 8)
        plans.append(declared.upload.files[0].model_copy(update={"path": name}))
    done = [part.model_copy(update={"uploaded": True, "url": None}) for part in plans[0].parts]
    unchanged = plans[0].model_copy(update={"path": "tokenizer.json", "parts": done})
    plan = UploadPlan(contribution="c0", expires_at=NOW, files=[*plans, unchanged])
    upload(source.api, plan, {name: tmp_path / name for name in files}, notes)
    assert [repository.received(identity) for identity in ("c0", "c1")] == [CONTENT, other]
    assert sum(notes.moved) == 3 * len(CONTENT)


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
