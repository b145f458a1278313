"""The hub's wire format word by word: what clients rely on, and what no client sends."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from coldfusion_server.hub.install import ROUTES
from coldfusion_server.hub.paths import Template
from coldfusion_server.services.rollback import roll_back
from coldfusion_shared.schemas.models import RollbackRequest
from coldfusion_shared.schemas.tokens import Role
from tests.hub.clients import door
from tests.hub.conftest import PRIVATE, Library, fill
from tests.server.repository import MODEL, repository, tiny_folder

API = f"/api/models/{MODEL}"
FILE = f"/{MODEL}/resolve/main/config.json"
ROLES = (None, *Role)

STRANGERS = (PRIVATE, "demo/nothing", "demo/..", "%2e%2e/%2e%2e", "demo/a%00b", "de%2Fmo/x")
NAMES = (
    "../../secret.key",
    "%2e%2e/secret.key",
    "%2e%2e%2fsecret.key",
    "%252e%252e%252fsecret.key",
    "..%5csecret.key",
    "%00",
    "config.json%00",
    "config%252ejson",
    "%2fetc%2fpasswd",
    "/etc/passwd",
    "%ff%fe",
    "a" * 300,
    "%F0%9F%98%80" * 100,
    ".git/config",
    "",
    "config.json/",
    "CONFIG.JSON",
)
REVISIONS = (
    "..",
    "%2e%2e",
    "%2e%2e%2f%2e%2e",
    "main%00",
    "MAIN",
    "latest",
    "v01",
    "v-1",
    "v" + "9" * 30,
    "refs%2Fheads%2Fv0",
    "refs%252Ftags%252Fv0",
    "refs%2Ftags%2Fmain",
    "refs%2Ftags%2Flatest",
    "0" * 40,
    "0" * 64,
    "a" * 300,
    "%F0%9F%98%80",
    "%",
    "%zz",
    "%ff",
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """A Repository with two bases of a model that is made in a blink."""
    folder = tmp_path_factory.mktemp("wire")
    with repository(folder / "data") as repo:
        (folder / "source").mkdir()
        yield fill(repo, tiny_folder(folder / "source"))


@pytest.fixture
def http(small: Library) -> TestClient:
    """A visitor."""
    return small.repo.client()


@pytest.fixture(scope="module")
def url(small: Library) -> Iterator[str]:
    """Where it is served, for requests that go out as they are written."""
    with door(small.repo) as found:
        yield found


def send(
    url: str, method: str, path: str, token: str | None = None, body: str | None = None
) -> httpx2.Response:
    """Send a request with its path as it stands here: better clients tidy it up."""
    connection = HTTPConnection(url.removeprefix("http://"), timeout=240)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    told = answer.getheaders()
    response = httpx2.Response(answer.status, headers=told, content=answer.read())
    connection.close()
    return response


@pytest.mark.parametrize("name", NAMES)
def test_no_file_is_found_by_another_name(url: str, name: str) -> None:
    for revision in ("main", "v0"):
        answer = send(url, "GET", f"/{MODEL}/resolve/{revision}/{name}")
        assert answer.status_code == 404
        assert answer.headers["x-error-code"] == "EntryNotFound"
        assert re.fullmatch("[0-9a-f]{40}", answer.headers["x-repo-commit"])
        assert len(answer.content) < 1000


@pytest.mark.parametrize("revision", REVISIONS)
def test_no_base_is_found_by_another_name(url: str, revision: str) -> None:
    for path in (
        f"/{MODEL}/resolve/{revision}/config.json",
        f"{API}/revision/{revision}",
        f"{API}/tree/{revision}",
        f"{API}/commits/{revision}",
    ):
        answer = send(url, "GET", path)
        assert (answer.status_code, answer.headers.get("x-error-code")) == (404, "RevisionNotFound")


def test_a_base_has_many_names(small: Library, url: str) -> None:
    commit = small.commit("v0")
    for name in ("v0", "refs%2Ftags%2Fv0", "refs%2ftags%2fv0", "%760", commit):
        answer = send(url, "HEAD", f"/{MODEL}/resolve/{name}/config.json")
        assert answer.headers["x-repo-commit"] == commit
    for name in ("main", "HEAD", "refs%2Fheads%2Fmain", "v1"):
        answer = send(url, "GET", f"{API}/revision/{name}")
        assert answer.json()["sha"] == small.commit("v1")


@pytest.mark.parametrize("model", STRANGERS)
def test_what_is_not_there_and_what_is_not_to_be_seen_look_the_same(
    small: Library, url: str, model: str
) -> None:
    for token, status in ((None, 401), (small.repo.token("joe", models=[MODEL]), 404)):
        for path in (
            f"/api/models/{model}",
            f"/api/models/{model}/revision/main",
            f"/api/models/{model}/tree/main",
            f"/api/models/{model}/refs",
            f"/api/models/{model}/commits/main",
            f"/api/models/{model}/auth-check",
            f"/api/models/{model}/nothing/of/this",
            f"/{model}/resolve/main/config.json",
        ):
            answer = send(url, "GET", path, token)
            assert answer.headers.get("x-error-code") == "RepoNotFound", path
            assert answer.status_code == status, path
            assert "x-repo-commit" not in answer.headers
        asked = send(url, "POST", f"/api/models/{model}/paths-info/main", token, "paths=a")
        told = send(url, "HEAD", f"/{model}/resolve/main/config.json", token)
        assert asked.status_code == told.status_code == status
        listed = send(url, "GET", "/api/models", token)
        assert listed.status_code == 200 and PRIVATE not in listed.text


def test_every_role_reads_what_it_may(small: Library) -> None:
    for role in ROLES:
        token = None if role is None else small.repo.token(f"r-{role}", role)
        http = small.repo.client(token)
        assert http.get(FILE).status_code == http.get(API).status_code == 200
        assert http.get(f"/api/models/{PRIVATE}").status_code == (401 if role is None else 200)
        who = http.get("/api/whoami-v2")
        assert who.status_code == (401 if role is None else 200)
        if role is not None:
            pushes = 200 if role not in (Role.READER, Role.EVALUATOR) else 403
            assert http.get(f"{API}/auth-check/write").status_code == pushes
            rights = who.json()["auth"]["accessToken"]["role"]
            assert rights == ("read" if role in (Role.READER, Role.EVALUATOR) else "write")


def test_wrong_tokens_are_told_as_the_hub_does(small: Library, http: TestClient) -> None:
    expired = small.repo.token("exa", seconds=1)
    small.repo.clock.advance(seconds=2)
    for value in (b"Bearer hf_wrong", f"Bearer {expired}".encode(), b"Basic abc", b"Bearer \xff"):
        for path in (API, FILE, "/api/whoami-v2", "/api/models"):
            answer = http.get(path, headers={b"Authorization": value})
            if answer.status_code == 429:
                continue  # Too many of them were tried by now.
            assert answer.status_code == 401
            said = answer.headers["x-error-message"]
            assert said == "Invalid credentials in Authorization header"
            assert "x-error-code" not in answer.headers and answer.json()["error"]
    # A token in the wrong place is none.
    answer = http.get(f"/api/models/{PRIVATE}?token={small.token}")
    assert answer.status_code == 401 and small.token not in answer.text


def test_a_file_is_told_and_sent_as_clients_need_it(small: Library, http: TestClient) -> None:
    digest = small.versions[1]["config.json"]
    told, sent = http.head(FILE), http.get(FILE)
    for answer in (told, sent):
        headers = answer.headers
        assert headers["etag"] == headers["x-linked-etag"] == f'"{digest}"'
        assert headers["x-linked-size"] == headers["content-length"] == str(len(sent.content))
        assert headers["accept-ranges"] == "bytes" and "content-encoding" not in headers
        assert headers["cache-control"] == "no-store, no-transform"
        assert headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in headers["content-security-policy"]
        assert headers["content-disposition"] == 'attachment; filename="config.json"'
        # These alone would make clients speak Xet.
        assert not {name for name in headers if "xet" in name}
    assert not told.content and hashlib.sha256(sent.content).hexdigest() == digest
    same = http.get(FILE, headers={"If-None-Match": f'W/"{digest}"'})
    assert same.status_code == 304 and not same.content


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=3-", 206, 3, None),
        ("bytes=-4", 206, -4, None),
        ("bytes=2-99999", 206, 2, None),
        ("bytes=0-1,3-4", 200, 0, None),
        ("pages=1-2", 200, 0, None),
        ("bytes=99999-", 416, None, None),
    ],
)
def test_ranges(
    http: TestClient, asked: str, status: int, start: int | None, stop: int | None
) -> None:
    whole = http.get(FILE).content
    answer = http.get(FILE, headers={"Range": asked})
    assert answer.status_code == status
    if status == 416:
        assert answer.headers["content-range"] == f"bytes */{len(whole)}"
        assert answer.headers["x-error-message"]
    else:
        assert answer.content == whole[start:stop]


def test_a_tree_is_told_as_pointers_of_large_files(small: Library, http: TestClient) -> None:
    listed = http.get(f"{API}/tree/v1?recursive=true&expand=false").json()
    assert {item["path"]: item["lfs"]["oid"] for item in listed} == small.versions[1]
    for item in listed:
        pointer = (
            "version https://git-lfs.github.com/spec/v1\n"
            f"oid sha256:{item['lfs']['oid']}\nsize {item['size']}\n"
        ).encode()
        assert item["lfs"]["pointerSize"] == len(pointer)
        blob = b"blob %d\0" % len(pointer) + pointer
        assert item["oid"] == hashlib.sha1(blob).hexdigest()
    info = http.get(f"{API}?blobs=true&securityStatus=true&expand=siblings").json()
    assert {item["rfilename"]: item["blobId"] for item in info["siblings"]} == {
        item["path"]: item["oid"] for item in listed
    }


def test_pages_lead_on_by_whole_urls(small: Library, http: TestClient) -> None:
    for path, items in (
        (f"{API}/tree/refs%2Ftags%2Fv1?recursive=true&limit=2", len(small.versions[1])),
        (f"{API}/commits/main?limit=1", 2),
        ("/api/models?limit=1&author=demo", 1),
    ):
        found: list[Any] = []
        url: str | None = path
        while url is not None:
            answer = http.get(url)
            assert len(answer.json()) <= 2
            found += answer.json()
            url = answer.links.get("next", {}).get("url")
            assert url is None or url.startswith("http://testserver/api/models")
        assert len(found) == items
    for cursor in ("x", "-1", "9" * 30, "%00"):
        answer = http.get(f"{API}/tree/main?cursor={cursor}")
        assert answer.status_code == 400 and answer.headers["x-error-message"]
    assert http.get(f"{API}/tree/main?cursor=999").json() == []


def test_models_are_found_by_name_and_owner(small: Library) -> None:
    http = small.repo.client(small.token)

    def names(query: str) -> list[str]:
        return [item["id"] for item in http.get(f"/api/models?{query}").json()]

    assert names("") == [PRIVATE, MODEL]
    assert names("search=TIN") == [MODEL] and names("author=demo&search=priv") == [PRIVATE]
    for nothing in ("author=dem", "author=d%25", "search=%25", "search=a%00", "author=de_o"):
        assert names(nothing) == []
    (full,) = http.get("/api/models?search=tiny&full=true").json()
    assert full["sha"] == small.commit("v1") and len(full["siblings"]) == len(small.versions[1])


def test_paths_are_asked_for_by_form_and_by_json(http: TestClient) -> None:
    url = f"{API}/paths-info/main"
    paths = ["config.json", "no", "vocab.txt"]
    by_form = http.post(url, data={"paths": paths, "expand": "false"})
    by_json = http.post(url, json={"paths": paths, "expand": True})
    assert by_form.json() == by_json.json()
    assert [item["path"] for item in by_form.json()] == ["config.json", "vocab.txt"]
    assert http.post(url, data={"paths": "config.json"}).json()[0]["path"] == "config.json"
    for body in (b"[", b"[1]", b'{"paths": 3}', b'{"paths": [1]}', b"\xff", b"[" * 100_000):
        answer = http.post(url, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400 and answer.headers["x-error-message"]
    large = http.post(url, json={"paths": ["a"] * 1001})
    huge = http.post(url, content=b"paths=" + b"a" * 300_000)
    assert (large.status_code, huge.status_code) == (400, 413)
    assert huge.headers["x-error-message"]


def test_a_base_that_was_taken_back_is_warned_of(small: Library) -> None:
    repo = small.repo
    mia = repo.principal("mia", "maintainer")
    roll_back(repo.ctx, MODEL, RollbackRequest(version="v0", reason="it was worse"), mia)
    try:
        http = repo.client()
        warning = http.head(f"/{MODEL}/resolve/v1/config.json").headers["x-hf-warning"]
        assert warning == (
            f"rollback; v1 of {MODEL} was taken back by its maintainers; the head is v0."
        )
        assert http.get(f"{API}/revision/v1").headers["x-hf-warning"] == warning
        assert "x-hf-warning" not in http.get(f"{API}/revision/v0").headers
        assert http.get(API).json()["sha"] == small.commit("v0")
        # What hangs on a commit id stays where it is.
        assert http.head(f"/{MODEL}/resolve/{small.commit('v1')}/config.json").status_code == 200
    finally:
        roll_back(repo.ctx, MODEL, RollbackRequest(version="v1", reason="it was not"), mia)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{API}/tag/v1"),
        ("DELETE", f"{API}/tag/v1"),
        ("DELETE", f"{API}/branch/main"),
        ("PUT", f"{API}/settings"),
        ("DELETE", "/api/repos/delete"),
        ("POST", "/api/repos/move"),
    ],
)
def test_what_there_is_not_is_refused_with_a_sentence(
    small: Library, http: TestClient, method: str, path: str
) -> None:
    asked = {"tag": "x", "name": "tiny", "organization": "demo"}
    answer = small.repo.client(small.repo.token("mia", "maintainer")).request(
        method, path, json=asked
    )
    assert answer.status_code == 403 and answer.headers["x-error-message"].endswith(".")
    assert answer.json()["error"]
    assert http.request(method, path, json=asked).status_code == 401


def test_errors_of_every_kind_have_the_hubs_form(small: Library, http: TestClient) -> None:
    for method, path, status in (
        ("GET", "/api/agent-harnesses", 404),
        ("GET", "/api/nothing", 404),
        ("GET", f"{API}/nothing", 404),
        ("GET", "/api/datasets/demo/tiny", 401),
        ("GET", "/datasets/demo/tiny/resolve/main/a", 401),
        ("GET", "/bert/resolve/main/config.json", 401),
        ("GET", "/api/models/bert", 401),
        ("POST", API, 401),
        ("DELETE", FILE, 401),
    ):
        answer = http.request(method, path)
        assert answer.status_code == status, path
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-error-message"] and answer.headers["x-request-id"]
        assert set(answer.json()) == {"error"}
    token = small.repo.client(small.token)
    refused = token.post(FILE, json={})
    assert refused.status_code == 405 and refused.headers["allow"] == "GET, HEAD"
    # A person with a browser reads a page.
    page = http.get(f"{API}/revision/v99", headers={"Accept": "text/html"})
    assert page.status_code == 404 and page.headers["content-type"].startswith("text/html")
    # And our own API keeps its own form.
    ours = http.get("/v1/models/demo/nothing")
    assert ours.headers["content-type"] == "application/problem+json"


def test_headers_are_one_line_whatever_was_asked_for(url: str) -> None:
    answer = send(url, "GET", f"/{MODEL}/resolve/main/a%0d%0aSet-Cookie:%20x=1%1b[31m")
    assert answer.status_code == 404 and "set-cookie" not in answer.headers
    assert answer.headers["x-error-message"].isprintable()


def test_too_many_requests_are_told_when_to_come_back(tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("rates") / "data"
    # By a clock that stands still: with time, more may come.
    with repository(folder, rate_per_address=3, seconds=lambda: 1000.0) as repo:
        http = repo.client()
        answers = [http.get("/api/models") for _ in range(5)]
    assert [answer.status_code for answer in answers[-2:]] == [429, 429]
    assert int(answers[-1].headers["retry-after"]) > 0 and answers[-1].headers["x-error-message"]


def test_scores_are_told_where_they_were_measured(small: Library) -> None:
    before = small.repo.get(API)
    assert before["model-index"] is None and "model-index" not in before["cardData"]
    report = {
        "suite": "films",
        "protocol": "frozen",
        "scores": {"film reviews": 81.5, "<script>": 40.0},
        "standard_errors": {"film reviews": 0.5},
        "seeds": [1, 2],
    }
    eve = small.repo.client(small.repo.token("eve", "evaluator"))
    kept = eve.post(f"/v1/models/{MODEL}/bases/v1/evaluations", json=report)
    assert kept.status_code == 201, kept.text
    found = small.repo.get(API)
    assert found["cardData"]["model-index"] == found["model-index"]
    (model,) = found["model-index"]
    assert model["name"] == f"{MODEL} v1"
    first, second = model["results"]
    assert first["dataset"] == {"type": "films", "name": "film reviews"}
    assert first["metrics"][0]["value"] == 81.5 and first["source"]["name"] == "eve"
    assert first["metrics"][0]["args"] == {"standard_error": 0.5}
    assert second["dataset"]["name"] == "<script>"
    # Of the base before nothing was measured.
    assert small.repo.get(f"{API}/revision/v0")["model-index"] is None
    from huggingface_hub import ModelCardData

    results = ModelCardData(**found["cardData"]).eval_results
    assert results is not None and results[0].metric_value == 81.5
    json.dumps(found)


@pytest.mark.parametrize(
    ("template", "path", "values"),
    [
        ("/{owner}/{name}/resolve/{rev}/{path*}", "a/b/resolve/x%2Fy/c/d%20e", "a b x/y c/d_e"),
        ("/{owner}/{name}/resolve/{rev}/{path*}", "a/b/resolve/main", "a b main "),
        ("/{owner}/{name}.git/info/lfs/{path*}", "a/b.git/info/lfs/x", "a b x"),
        ("/{owner}/{name}.git/info/lfs/{path*}", "a/b/info/lfs/x", None),
        ("/api/models/{owner}/{name}", "api/models/a/b/c", None),
        ("/api/models/{owner}/{name}", "api/models/a/", None),
        ("/{owner}/{name}/resolve/{rev}/{path*}", "a/b/resolve/../../c", "a b .. ../c"),
        ("/api/models/{owner}/{name}", "api/models/a/%252e", "a %2e"),
    ],
)
def test_templates(template: str, path: str, values: str | None) -> None:
    found = Template(template).match(path.split("/"))
    expected = None if values is None else [one.replace("_", " ") for one in values.split(" ")]
    assert (found and list(found.values())) == expected


def test_no_two_routes_answer_the_same() -> None:
    known = [(method, route.path) for route in ROUTES for method in route.methods]
    assert len(known) == len(set(known))
