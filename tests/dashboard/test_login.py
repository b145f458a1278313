"""Login by form: the cookie, who may send the form, and how little the cookie is good for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from coldfusion_server.api.session import COOKIE
from tests.dashboard.history import PRIVATE
from tests.server.backends import Backend
from tests.server.repository import MODEL, Repository, repository


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[Repository]:
    with backend.database() as url, repository(tmp_path_factory.mktemp("login"), url) as opened:
        opened.model(PRIVATE, public=False)
        yield opened


def log_in(repo: Repository, token: str, next: str = "/", **headers: str) -> Any:
    return repo.client().post(
        "/login", data={"token": token, "next": next}, headers=headers, follow_redirects=False
    )


def test_a_token_becomes_a_session_that_reads(repo: Repository) -> None:
    browser = repo.client()
    form = {"token": f" {repo.token('rea', 'reader')} ", "next": f"/models/{PRIVATE}"}
    assert browser.get(f"/models/{PRIVATE}").status_code == 404
    page = browser.post("/login", data=form)
    assert page.url.path == f"/models/{PRIVATE}" and page.status_code == 200
    assert "rea" in page.text and "Log out" in page.text
    assert browser.post("/logout").url.path == "/"
    assert browser.get(f"/models/{PRIVATE}").status_code == 404


def test_the_cookie_is_closed_to_scripts_and_other_sites(repo: Repository) -> None:
    token = repo.token("rea", "reader")
    cookie = log_in(repo, token).headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=") and token not in cookie
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Secure" not in cookie


def test_the_cookie_is_secure_behind_https(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("https")
    with repository(folder, public_url="https://fusion.example") as opened:
        token = opened.token("rea", "reader")
        answer = log_in(opened, token, origin="https://fusion.example")
    assert answer.status_code == 303 and "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("token", ["", "nonsense", f"cf_{'0' * 16}_{'a' * 43}"])
def test_a_wrong_token_is_told(repo: Repository, token: str) -> None:
    answer = log_in(repo, token)
    assert answer.status_code == 401 and "The token is not valid." in answer.text
    assert 'aria-invalid="true"' in answer.text and "set-cookie" not in answer.headers


def test_an_expired_token_is_told(repo: Repository) -> None:
    token = repo.token("late", "reader", seconds=1)
    repo.clock.advance(seconds=2)
    answer = log_in(repo, token)
    assert answer.status_code == 401 and "expired" in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://[::"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "http://testserver"},
    ],
)
def test_another_site_can_neither_log_in_nor_out(repo: Repository, headers: dict[str, str]) -> None:
    answer = log_in(repo, repo.token("rea", "reader"), **headers)
    assert answer.status_code == 403 and "set-cookie" not in answer.headers
    assert "<html" in answer.text
    assert repo.client().post("/logout", headers=headers).status_code == 403


def test_our_own_form_is_taken(repo: Repository) -> None:
    headers = {"origin": "http://testserver", "sec-fetch-site": "same-origin"}
    assert log_in(repo, repo.token("rea", "reader"), **headers).status_code == 303


@pytest.mark.parametrize(
    "target",
    ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\nb"],
)
def test_login_leads_nowhere_else(repo: Repository, target: str) -> None:
    assert log_in(repo, repo.token("rea", "reader"), target).headers["location"] == "/"
    assert 'name="next" value="/"' in repo.client().get("/login", params={"next": target}).text


@pytest.mark.parametrize("path", ["/login", "/logout"])
def test_forms_are_small(repo: Repository, path: str) -> None:
    answer = repo.client().post(path, content=b"token=" + b"a" * 5000)
    assert answer.status_code == 413


def test_a_form_that_is_none_is_refused(repo: Repository) -> None:
    answer = repo.client().post("/login", content=b"\xff" * 10)
    assert answer.status_code == 422
    assert repo.client().post("/login", content=b"a=1&" * 20).status_code == 422


def test_nothing_is_written_by_cookie(repo: Repository) -> None:
    browser = repo.client()
    browser.post("/login", data={"token": repo.token("mia", "maintainer")})
    assert browser.get("/v1/whoami").json()["name"] == "mia"
    answer = browser.post(f"/v1/models/{MODEL}/rounds/open/close")
    assert answer.status_code == 401


def test_a_path_that_only_begins_like_a_form_needs_a_token(repo: Repository) -> None:
    assert repo.client().post("/login-elsewhere", content=b"x").status_code == 401
