"""What every answer tells a browser: to run, load, frame and keep nothing that is not ours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from coldfusion_server.services import models
from tests.server.repository import MODEL, Repository, repository

BASE = f"/v1/models/{MODEL}/bases/v0"
API = [
    ("GET", "/v1", 200),
    ("GET", "/v1/openapi.json", 200),
    ("GET", BASE, 200),
    ("GET", f"{BASE}/files/config.json", 200),
    ("HEAD", f"{BASE}/files/config.json", 200),
    ("GET", f"{BASE}/card", 200),
    ("GET", "/v1/nowhere", 404),
    ("GET", "/v1/whoami", 401),
    ("POST", "/v1/models", 401),
    ("DELETE", "/v1/models", 401),
    ("GET", "/v1/models?limit=0", 422),
    ("GET", "/static/app.css", 200),
    ("GET", "/healthz", 200),
]
PAGES = [
    ("GET", "/", 200),
    ("HEAD", "/", 200),
    ("GET", f"/models/{MODEL}", 200),
    ("GET", "/login", 200),
    ("GET", "/models/none/none", 404),
    ("POST", "/login", 401),
]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    with repository(tmp_path_factory.mktemp("headers")) as opened:
        opened.model()
        yield opened


def directives(policy: str) -> dict[str, str]:
    """Return a content security policy as what it allows of each kind."""
    parts = [part.strip().partition(" ") for part in policy.split(";")]
    return {name: allowed for name, _, allowed in parts}


@pytest.mark.parametrize(("method", "path", "status"), [*API, *PAGES])
def test_every_answer_is_guarded(method: str, path: str, status: int, repo: Repository) -> None:
    answer = repo.client().request(method, path)
    assert answer.status_code == status, answer.text
    headers = answer.headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["referrer-policy"] in ("no-referrer", "same-origin")
    assert "server" not in headers and headers["x-request-id"]
    if not path.startswith("/static"):
        assert headers["cache-control"].startswith("private")
    policy = directives(headers["content-security-policy"])
    assert policy["default-src"] == "'none'" and policy["frame-ancestors"] == "'none'"
    assert set(policy.values()) <= {"'none'", "'self'", ""}


@pytest.mark.parametrize(("method", "path", "status"), PAGES)
def test_a_page_runs_our_own_scripts_alone(
    method: str, path: str, status: int, repo: Repository
) -> None:
    headers = repo.client().request(method, path).headers
    policy = directives(headers["content-security-policy"])
    own = ("script-src", "style-src", "img-src", "connect-src", "form-action")
    assert {name: policy[name] for name in own} == dict.fromkeys(own, "'self'")
    assert policy["base-uri"] == "'none'" and "sandbox" not in policy
    assert headers["cache-control"] == "private, no-store" and headers["vary"] == "Cookie"


@pytest.mark.parametrize(("method", "path", "status"), API)
def test_what_is_no_page_is_shown_in_a_sandbox(
    method: str, path: str, status: int, repo: Repository
) -> None:
    policy = directives(repo.client().request(method, path).headers["content-security-policy"])
    assert policy == {"default-src": "'none'", "frame-ancestors": "'none'", "sandbox": ""}


def test_a_file_is_saved_and_never_shown(repo: Repository) -> None:
    headers = repo.client().get(f"{BASE}/files/config.json").headers
    assert headers["content-disposition"] == 'attachment; filename="config.json"'
    assert headers["content-type"] == "application/octet-stream"


def test_the_picture_of_a_card_may_stand_on_other_sites(repo: Repository) -> None:
    headers = repo.client().get(f"{BASE}/card/gain.svg").headers
    assert headers["cross-origin-resource-policy"] == "cross-origin"
    assert directives(headers["content-security-policy"])["default-src"] == "'none'"


@pytest.mark.parametrize("path", ["/v1/models", "/"])
def test_a_fault_of_ours_is_guarded_too(
    path: str, repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(models, "list_models", broken)
    headers = repo.client().get(path).headers
    assert headers["x-frame-options"] == "DENY" and headers["x-request-id"]
    assert "default-src 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_no_other_site_may_read_an_answer(origin: str, repo: Repository) -> None:
    answer = repo.client().get("/v1/models", headers={"Origin": origin})
    preflight = repo.client().options(
        "/v1/models", headers={"Origin": origin, "Access-Control-Request-Method": "PUT"}
    )
    for found in (answer, preflight):
        assert not [name for name in found.headers if name.startswith("access-control")]
