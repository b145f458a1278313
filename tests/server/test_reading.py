"""Reading bases: whole, by range, or not at all when nothing is new."""

from __future__ import annotations

import hashlib

import pytest
from sqlalchemy import update

from coldfusion_server.db.tables import ModelRow
from tests.server.backends import only_sqlite
from tests.server.repository import MODEL, Repository, tiny_tensors
from tests.shared.checkpoints import file_bytes

BASE = f"/v1/models/{MODEL}/bases/v0"
FILE = f"{BASE}/files/model.safetensors"
RAW = file_bytes(tiny_tensors())
ETAG = f'"{hashlib.sha256(RAW).hexdigest()}"'

# Bytes, headers and ranges are the same whatever tells which file it is.
pytestmark = only_sqlite


def test_a_file_comes_whole_with_its_digest_as_etag(repo: Repository) -> None:
    answer = repo.client().get(FILE)
    assert answer.content == RAW
    assert answer.headers["etag"] == ETAG
    assert answer.headers["content-length"] == str(len(RAW))
    assert answer.headers["accept-ranges"] == "bytes"
    assert "attachment" in answer.headers["content-disposition"]


def test_head_tells_the_same_without_the_bytes(repo: Repository) -> None:
    head, get = repo.client().head(FILE), repo.client().get(FILE)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("etag", "content-length", "content-type"):
        assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("sent", [ETAG, f"W/{ETAG}", f'"x", {ETAG}', f'"x",{ETAG} , "y"', "*"])
def test_nothing_new_is_304(sent: str, method: str, repo: Repository) -> None:
    answer = repo.client().request(method, FILE, headers={"If-None-Match": sent})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == ETAG


@pytest.mark.parametrize("sent", ['"x"', "", ETAG.strip('"'), '"', ETAG[:-2] + '"'])
def test_another_etag_gets_the_file(sent: str, repo: Repository) -> None:
    assert repo.client().get(FILE, headers={"If-None-Match": sent}).content == RAW


def test_the_base_itself_has_its_digest_as_etag(repo: Repository) -> None:
    answer = repo.client().get(BASE)
    etag = answer.headers["etag"]
    assert etag == f'"{answer.json()["digest"]}"'
    for path in (BASE, BASE.replace("v0", "latest")):
        assert repo.client().get(path, headers={"If-None-Match": etag}).status_code == 304
    assert repo.client().get(BASE, headers={"If-None-Match": '"x"'}).status_code == 200


@pytest.mark.parametrize(
    ("sent", "start", "stop"),
    [("bytes=0-99", 0, 100), ("bytes=100-", 100, len(RAW)), ("bytes=-50", len(RAW) - 50, len(RAW)),
     (f"bytes=10-{10**12}", 10, len(RAW)), ("bytes=0-0", 0, 1)],
)  # fmt: skip
def test_a_range_is_exactly_that(sent: str, start: int, stop: int, repo: Repository) -> None:
    answer = repo.client().get(FILE, headers={"Range": sent})
    assert answer.status_code == 206
    assert answer.content == RAW[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(RAW)}"
    assert answer.headers["etag"] == ETAG


def test_a_range_of_what_changed_is_the_whole_file(repo: Repository) -> None:
    headers = {"Range": "bytes=5-9", "If-Range": ETAG}
    assert repo.client().get(FILE, headers=headers).content == RAW[5:10]
    headers["If-Range"] = '"older"'
    answer = repo.client().get(FILE, headers=headers)
    assert (answer.status_code, answer.content) == (200, RAW)


def test_a_range_beyond_the_end_is_416_with_the_size(repo: Repository) -> None:
    answer = repo.client().get(FILE, headers={"Range": f"bytes={len(RAW)}-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(RAW)}"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "invalid_request"


@pytest.mark.parametrize("sent", ["bytes=x-y", "bytes=", "items=0-1", "bytes=5-1", "bytes", "²"])
def test_a_range_that_makes_no_sense_is_no_fault_of_ours(sent: str, repo: Repository) -> None:
    answer = repo.client().get(FILE, headers={b"Range": sent.encode("latin-1")})
    assert answer.status_code in (200, 400, 416)
    if answer.status_code != 200:
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_file_that_the_store_has_lost_is_the_stores_trouble(repo: Repository) -> None:
    path = repo.ctx.store.local_path(ETAG.strip('"'))
    assert path is not None
    path.unlink()
    for method in ("GET", "HEAD"):
        answer = repo.client().request(method, FILE)
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
    assert repo.client().get(FILE).json()["code"] == "storage_unavailable"


def test_files_that_a_base_does_not_list_are_not_served(repo: Repository) -> None:
    base = repo.get(BASE)
    listed = {file["path"] for file in base["manifest"]["files"]}
    assert listed == {"README.md", "config.json", "vocab.txt", "model.safetensors"}
    for path in listed:
        assert repo.client().get(f"{BASE}/files/{path}").status_code == 200
    assert repo.client().get(f"{BASE}/files/secret.key").status_code == 404


def test_the_model_card_says_how_to_use_the_base(repo: Repository) -> None:
    card = repo.client().get(f"{BASE}/files/README.md").text
    assert MODEL in card and "coldfusion-client pull" in card and "AutoModel" in card


def test_v1_tells_version_and_time(repo: Repository) -> None:
    assert repo.get("/v1")["time"] == "2026-06-01T12:00:00Z"
    assert repo.get("/v1")["name"] == "coldfusion"


def test_the_document_tells_how_errors_come_and_where_the_token_goes(repo: Repository) -> None:
    document = repo.client().get("/v1/openapi.json").json()
    answers = document["paths"]["/v1/models/{owner}/{name}"]["get"]["responses"]
    assert list(answers["4XX"]["content"]) == ["application/problem+json"]
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"


def test_a_base_that_is_the_newest_no_more_has_another_etag(repo: Repository) -> None:
    before = repo.client().get(BASE).headers["etag"]
    with repo.ctx.database.write() as session:
        session.execute(update(ModelRow).values(current=1))
    after = repo.client().get(BASE)
    assert after.headers["etag"] != before and not after.json()["current"]
