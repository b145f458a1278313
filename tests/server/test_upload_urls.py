"""A part's URL is its own credential: for this part, of this size, until it expires."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from tests.server.asgi import Answer, Headers, request
from tests.server.backends import only_sqlite
from tests.server.repository import Repository, body_file

# Nothing here depends on the database.
pytestmark = only_sqlite

RAW = body_file()


class Upload:
    """A declared contribution's only part."""

    def __init__(self, repo: Repository) -> None:
        self.repo = repo
        self.ann = repo.contributor()
        declared = self.ann.declare(RAW).json()
        self.id = declared["contribution"]["id"]
        url = urlsplit(declared["upload"]["files"][0]["parts"][0]["url"])
        self.path, self.query = url.path, dict(parse_qsl(url.query))

    def put(
        self,
        chunks: Iterable[bytes] = (RAW,),
        headers: Headers = (),  # type: ignore[assignment]
        path: str | None = None,
        hang_up: bool = False,
        query: dict[str, str] | None = None,
    ) -> Answer:
        encoded = urlencode({**self.query, **(query or {})})
        return request(
            self.repo.app, "PUT", path or self.path, headers, chunks, encoded, hang_up=hang_up
        )

    def arrived(self) -> int:
        return int(self.ann.receipt(self.id)["uploaded_bytes"])

    def left(self) -> list[str]:
        return [path.name for path in (self.repo.folder / "tmp").iterdir()]


@pytest.fixture
def upload(repo: Repository) -> Upload:
    return Upload(repo)


def refused(upload: Upload, answer: Answer, *statuses: int) -> None:
    """Check that it is a proper refusal and that nothing was kept."""
    assert answer.status in statuses, (answer.status, answer.body)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert upload.arrived() == 0
    assert upload.left() == []


def test_the_signed_url_takes_the_part_without_a_token(upload: Upload) -> None:
    answer = upload.put([RAW[:100], RAW[100:]])
    assert answer.status == 200
    assert upload.arrived() == len(RAW)
    assert upload.left() == []


@pytest.mark.parametrize(
    "change",
    [
        {"signature": ""},
        {"signature": "0" * 64},
        {"signature": "ä" * 64},
        {"signature": "x" * 100_000},
        {"size": "1"},
        {"size": "999999"},
        {"size": "-1"},
        {"size": ""},
        {"size": "many"},
        {"size": "²"},
        {"size": "9" * 5000},
        {"expires": "99999999999"},
        {"expires": "never"},
        {"expires": ""},
        {"expires": "1e9"},
        {"expires": "9" * 5000},
    ],
    ids=lambda change: "-".join([*change, *(v[:8] for v in change.values())]),
)
def test_a_url_that_was_not_signed_is_refused_before_its_body_is_read(
    change: dict[str, str], upload: Upload
) -> None:
    answer = upload.put([bytes(1000)] * 1000, query=change)
    refused(upload, answer, 403)
    assert answer.json()["code"] == "upload_refused"
    assert answer.read == 0


@pytest.mark.parametrize("query", ["", "size=1", "signature=", "signature&&&=;%", "%00=%ff"])
def test_a_url_without_its_query_is_refused(query: str, upload: Upload) -> None:
    refused(upload, request(upload.repo.app, "PUT", upload.path, [], [RAW], query), 403)


def test_a_signature_is_good_for_its_own_path_alone(upload: Upload, repo: Repository) -> None:
    other = repo.contributor("bob").declare(body_file(2)).json()["contribution"]["id"]
    for path in (
        f"/v1/uploads/{upload.id}.0/2",
        f"/v1/uploads/{upload.id}.1/1",
        f"/v1/uploads/{upload.id}.0/01",
        f"/v1/uploads/{upload.id}.0/+1",
        f"/v1/uploads/{upload.id}/1",
        f"/v1/uploads/{other}.0/1",
        "/v1/uploads/../1",
        "/v1/uploads/%2e%2e/1",
        f"/v1/uploads/{upload.id}.0%2f../1",
    ):
        refused(upload, upload.put(path=path), 403, 404, 422)


@pytest.mark.parametrize("number", ["x", "1.5", "²", "", "9" * 5000, "-1", "0"])
def test_a_part_number_that_is_none_is_refused(number: str, upload: Upload) -> None:
    refused(upload, upload.put(path=f"/v1/uploads/{upload.id}.0/{number}"), 403, 404, 422)


def test_an_expired_url_is_refused_and_the_plan_has_a_new_one(upload: Upload) -> None:
    upload.repo.clock.advance(minutes=59)
    assert upload.put([RAW]).status == 200
    upload.repo.clock.advance(minutes=2)
    answer = upload.put([RAW])
    assert (answer.status, answer.json()["code"]) == (403, "upload_refused")
    assert "plan" in answer.json()["hint"]
    assert answer.read == 0


@pytest.mark.parametrize("length", [None, b"10", str(len(RAW)).encode()])
def test_a_body_that_is_longer_than_signed_is_cut_off(length: bytes | None, upload: Upload) -> None:
    headers = [] if length is None else [(b"content-length", length)]
    answer = upload.put([bytes(64 * 1024)] * 1000, headers)
    refused(upload, answer, 413)
    assert answer.read < 4 * 2**20


def test_a_length_beyond_what_was_signed_is_refused_unread(upload: Upload) -> None:
    answer = upload.put([RAW], [(b"content-length", str(len(RAW) + 1).encode())])
    refused(upload, answer, 413)
    assert answer.read == 0


@pytest.mark.parametrize("content", [b"", RAW[:-1], RAW[:1]])
def test_a_body_that_is_too_short_is_refused(content: bytes, upload: Upload) -> None:
    refused(upload, upload.put([content] if content else []), 403)


def test_a_connection_that_breaks_leaves_nothing(upload: Upload) -> None:
    answer = upload.put([RAW[:100]], hang_up=True)
    assert answer.status in (0, 403)
    assert (upload.arrived(), upload.left()) == (0, [])


@pytest.mark.parametrize(
    "length",
    [b"-1", b"x", b"", b" ", b"1.5", b"0x10", b"\xb2", b"9" * 5000, b"9223372036854775808", b"+5"],
)
def test_a_weird_content_length_is_never_a_fault_of_ours(length: bytes, upload: Upload) -> None:
    answer = upload.put([bytes(2**20)] * 8, [(b"content-length", length)])
    refused(upload, answer, 400, 403, 413, 422)


@pytest.mark.parametrize(
    "length", [b"-1", b"x", b" ", b"1.5", b"\xb2", b"9" * 5000, b"9223372036854775808"]
)
def test_a_weird_content_length_of_a_small_body_is_none_either(
    length: bytes, repo: Repository
) -> None:
    headers = [
        (b"authorization", f"Bearer {repo.token()}".encode()),
        (b"content-type", b"application/json"),
        (b"content-length", length),
        (b"idempotency-key", b"12345678"),
    ]
    answer = request(repo.app, "POST", "/v1/models/demo/tiny/contributions", headers, [b"{}"])
    assert answer.status in (400, 413, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_disk_that_fills_while_a_part_arrives_keeps_nothing(
    upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("coldfusion_server.storage.local._sync", full)
        refused(upload, upload.put(), 507)
    assert upload.put().status == 200


def test_an_upload_that_nobody_declared_is_refused(repo: Repository) -> None:
    answer = request(repo.app, "PUT", "/v1/uploads/nobody.0/1", [], [b"x"])
    assert answer.status == 403


def test_a_bad_token_beside_a_good_url_is_said(upload: Upload) -> None:
    refused(upload, upload.put(headers=[(b"authorization", b"Bearer nonsense")]), 401)
