"""The way to the provider and back, and what comes of it: sessions, tokens, contributors."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient
from flask import Response
from sqlalchemy import select

from coldfusion_server.api.session import COOKIE
from coldfusion_server.db.tables import AuditRow, ContributorRow, TokenRow
from coldfusion_server.oidc import fetching
from coldfusion_server.oidc.fetching import MOST_BYTES, Fetcher
from coldfusion_server.oidc.options import options_of
from coldfusion_server.oidc.provider import KEYS_SECONDS, MOST_AT_A_TIME, PAUSE_SECONDS
from coldfusion_server.oidc.provider import Provider as Asked
from coldfusion_server.services.invitations import invite
from coldfusion_server.services.tokens import create_token, revoke_token
from coldfusion_server.settings import Settings
from coldfusion_shared.errors import ProviderUnavailable
from coldfusion_shared.schemas.invitations import InvitationRequest
from coldfusion_shared.schemas.tokens import Role
from tests.oidc.provider import DASHBOARD, PROGRAM, Provider
from tests.oidc.visit import come_back, exchange, settings_for, start, visit
from tests.server.backends import Backend
from tests.server.repository import Repository, repository

NOBODY = 'href="/login'


def me(browser: TestClient) -> Any:
    return browser.get("/v1/whoami").json()


def refused(page: Any, status: int, why: str) -> None:
    """Check that a page tells why in one sentence, and gives no session."""
    assert page.status_code == status and why in page.text, page.text
    assert COOKIE not in page.headers.get("set-cookie", "")


# In a browser.


def test_the_button_is_there_only_where_there_is_a_provider(
    repo: Repository, tmp_path: Path, _empty: Path
) -> None:
    page = repo.client().get("/login", params={"next": "/models/a/b?x=1"}).text
    assert "Sign in with Example &lt;b&gt;" in page
    assert 'href="/login/oidc?next=/models/a/b%3Fx%3D1"' in page
    other_folder = shutil.copytree(_empty, tmp_path / "other")
    with repository(other_folder, copied=True) as other:
        assert "oidc" not in other.client().get("/login").text
        for path in ("/login/oidc", "/login/oidc/callback?code=x&state=y", "/v1/sign-in"):
            assert other.client().get(path, follow_redirects=False).status_code == 404
        assert exchange(other, "x").status_code == 404


def test_signing_in_makes_a_contributor_and_a_session(repo: Repository, provider: Provider) -> None:
    browser, page = visit(repo, provider, "/models/a/b")
    assert page.status_code == 200 and 'content="0; url=/models/a/b"' in page.text
    cookies = page.headers.get_list("set-cookie")
    (session,) = [cookie for cookie in cookies if cookie.startswith(f"{COOKIE}=")]
    assert "HttpOnly" in session and "SameSite=strict" in session and "Secure" not in session
    assert any("coldfusion_sign_in=" in cookie and "Max-Age=0" in cookie for cookie in cookies)
    assert (me(browser)["name"], me(browser)["role"]) == ("ann", "contributor")
    assert "ann" in browser.get("/").text and NOBODY not in browser.get("/").text


def test_what_is_sent_along_is_bound_to_the_browser(repo: Repository, provider: Provider) -> None:
    browser = repo.client()
    query = parse_qs(urlsplit(start(browser)).query)
    assert query["code_challenge_method"] == ["S256"] and query["response_type"] == ["code"]
    cookie = browser.cookies["coldfusion_sign_in"]
    for name in ("state", "nonce", "code_challenge"):
        assert len(query[name][0]) >= 43 and query[name][0] not in cookie
    again = parse_qs(urlsplit(start(repo.client())).query)
    assert all(query[name] != again[name] for name in ("state", "nonce", "code_challenge"))


def test_by_https_the_cookies_are_for_https(provider: Provider, folder: Path) -> None:
    settings = settings_for(provider, public_url="https://fusion.example/")
    with repository(folder, copied=True, **settings) as opened:
        answer = opened.client().get("/login/oidc", follow_redirects=False)
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-coldfusion_sign_in=") and "Path=/;" in cookie
    assert "Secure" in cookie and "HttpOnly" in cookie and "SameSite=lax" in cookie
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    assert query["redirect_uri"] == ["https://fusion.example/login/oidc/callback"]


@pytest.mark.parametrize(
    "target",
    ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\nb",
     "/" + "x" * 600],
)  # fmt: skip
def test_it_leads_nowhere_else(repo: Repository, provider: Provider, target: str) -> None:
    _, page = visit(repo, provider, target)
    assert 'content="0; url=/"' in page.text and "evil" not in page.text


def test_the_answer_is_good_in_its_own_browser_alone_and_once(
    repo: Repository, provider: Provider
) -> None:
    browser = repo.client()
    answer = provider.answer(start(browser))
    # Somebody else is sent the link, to be signed in as us.
    refused(come_back(repo.client(), answer), 403, "No sign-in was begun in this browser.")
    other = repo.client()
    start(other)
    refused(come_back(other, answer), 403, "belongs to another sign-in")
    assert come_back(browser, answer).status_code == 200
    refused(come_back(browser, answer), 403, "No sign-in was begun")


def test_a_code_of_another_sign_in_is_worth_nothing(repo: Repository, provider: Provider) -> None:
    mine, theirs = repo.client(), repo.client()
    my_state = parse_qs(urlsplit(start(mine)).query)["state"][0]
    code = parse_qs(urlsplit(provider.answer(start(theirs))).query)["code"][0]
    # PKCE: the provider gives nothing for it to whoever has not begun it.
    page = mine.get("/login/oidc/callback", params={"state": my_state, "code": code,
                                                    "iss": provider.url})  # fmt: skip
    refused(page, 403, "has expired, or was used before")


def test_a_sign_in_that_takes_too_long_is_refused(repo: Repository, provider: Provider) -> None:
    browser = repo.client()
    answer = provider.answer(start(browser))
    repo.clock.advance(minutes=11)
    refused(come_back(browser, answer), 403, "took too long")


@pytest.mark.parametrize(
    "value", ["x", "..", "a.1.b.c", "a.b.c.d", "é", "0" * 5000, "." * 70, "\\" * 3000]
)
def test_a_forged_cookie_is_none(value: str, repo: Repository) -> None:
    headers = {b"Cookie": b"coldfusion_sign_in=" + value.encode()}
    page = repo.client().get("/login/oidc/callback?code=x&state=y", headers=headers)
    refused(page, 403, "No sign-in was begun")


def test_what_the_provider_says_in_its_own_words_is_not_shown(
    repo: Repository, provider: Provider
) -> None:
    browser = repo.client()
    denied = provider.answer(start(browser, "/models/a/b"), "deny")
    page = come_back(browser, denied + "&error_description=<script>alert(1)</script>")
    refused(page, 403, "The sign-in was refused at the provider.")
    assert "script>alert" not in page.text and "next=/models/a/b" in page.text
    state = parse_qs(urlsplit(start(browser)).query)["state"][0]
    strange = browser.get("/login/oidc/callback", params={"state": state, "error": "<b>bad</b>"})
    refused(strange, 403, "reports an error")
    assert "<b>bad" not in strange.text


def test_another_provider_cannot_answer_for_this_one(repo: Repository, provider: Provider) -> None:
    browser = repo.client()
    answer = provider.answer(start(browser)).split("&iss=")[0]
    refused(come_back(browser, answer), 403, "did not say who it is")
    answer = provider.answer(start(browser)).split("&iss=")[0]
    page = come_back(browser, answer + "&iss=https://evil.example")
    refused(page, 403, "comes from another provider")


@pytest.mark.parametrize(
    ("lies", "why"),
    [({"iss": "https://evil.example"}, "another provider"), ({"aud": "x"}, "another program"),
     ({"nonce": "x"}, "another sign-in"), ({"exp": 1}, "expired"), ({"iat": 2**40}, "too far"),
     ({"sub": None}, "names nobody"), ({"groups": []}, "None of your groups")],
)  # fmt: skip
def test_an_id_token_that_is_wrong_signs_nobody_in(
    lies: dict[str, Any], why: str, repo: Repository, provider: Provider
) -> None:
    provider.lies = lies
    browser, page = visit(repo, provider)
    refused(page, 403, why)
    assert browser.get("/v1/whoami").status_code == 401


def test_signing_out_ends_the_session_for_good(repo: Repository, provider: Provider) -> None:
    browser, _ = visit(repo, provider)
    cookie = browser.cookies[COOKIE]
    assert browser.post("/logout").status_code == 200
    thief = {"Cookie": f"{COOKIE}={cookie}"}
    assert repo.client().get("/v1/whoami", headers=thief).status_code == 401


def test_signing_out_leaves_a_token_that_a_person_has(repo: Repository, provider: Provider) -> None:
    token = repo.token("bob")
    browser = repo.client()
    browser.post("/login", data={"token": token})
    browser.post("/logout")
    assert repo.client(token).get("/v1/whoami").status_code == 200


def test_a_session_ends_after_its_hours_and_is_a_new_one_each_time(
    repo: Repository, provider: Provider
) -> None:
    browser, _ = visit(repo, provider)
    first = browser.cookies[COOKIE]
    come_back(browser, provider.answer(start(browser)))
    assert browser.cookies[COOKIE] != first
    repo.clock.advance(hours=12, seconds=1)
    assert browser.get("/v1/whoami").status_code == 401


def test_a_session_reads_and_never_writes(repo: Repository, provider: Provider) -> None:
    provider.person = {"sub": "9", "groups": ["chiefs"]}
    browser, _ = visit(repo, provider)
    assert me(browser)["role"] == "maintainer"
    assert browser.post("/v1/invitations", json={}).status_code == 401


# Of programs.


def test_an_id_token_becomes_a_token_once(repo: Repository, provider: Provider) -> None:
    id_token = provider.id_token(PROGRAM)
    key = "0123456789abcdef"
    answer = exchange(repo, id_token, key)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["name"], told["role"]) == ("ann", "contributor")
    assert told["expires_at"] == "2026-06-08T12:00:00Z"
    assert repo.client(told["token"]).get("/v1/whoami").json()["name"] == "ann"
    # A lost answer costs nothing; a stolen id token brings nothing.
    assert exchange(repo, id_token, key).json() == told
    again = exchange(repo, id_token)
    assert (again.status_code, again.json()["code"]) == (403, "sign_in_refused")
    assert "used before" in again.json()["detail"]
    revoke_token(repo.ctx, "ann")
    assert exchange(repo, id_token, key).status_code == 403
    repo.clock.advance(days=8)
    assert repo.client(told["token"]).get("/v1/whoami").status_code == 401


def test_an_id_token_of_the_dashboard_is_none_of_a_program(
    repo: Repository, provider: Provider
) -> None:
    answer = exchange(repo, provider.id_token("dashboard"))
    assert answer.status_code == 403 and "another program" in answer.json()["detail"]


def test_the_offer_names_the_provider(repo: Repository, provider: Provider) -> None:
    offer = repo.get("/v1/sign-in")
    assert offer["issuer"] == provider.url and offer["client_id"] == PROGRAM
    assert offer["token_endpoint"] == f"{provider.url}/token"
    assert "secret" not in json.dumps(offer)


def test_without_a_client_for_programs_nothing_is_offered(provider: Provider, folder: Path) -> None:
    settings = settings_for(provider, oidc_device_client_id=None)
    with repository(folder, copied=True, **settings) as opened:
        assert opened.client().get("/v1/sign-in").status_code == 404
        # Not even where an id token says that it is for nobody.
        assert exchange(opened, provider.id_token("None")).status_code == 404


def test_bodies_are_small_and_need_no_token(repo: Repository) -> None:
    assert exchange(repo, "x" * 20_000).status_code == 413
    assert exchange(repo, "x" * 13_000).status_code == 422
    assert exchange(repo, "x").status_code == 403


def test_wrong_ones_wait(provider: Provider, folder: Path) -> None:
    # By a clock that stands still: a wait is over after some time.
    settings = settings_for(provider, wrong_tokens=3, seconds=lambda: 1000.0)
    with repository(folder, copied=True, **settings) as opened:
        provider.now = lambda: opened.clock.now.timestamp()
        for number in range(3):
            assert exchange(opened, f"wrong{number}").status_code == 403
        waiting = exchange(opened, "wrong")
        assert waiting.status_code == 429 and int(waiting.headers["retry-after"]) >= 1
        page = opened.client().get("/login/oidc/callback?code=x&state=y")
        assert page.status_code == 429 and "retry-after" in page.headers
        # Who shares the address with whoever guesses goes on.
        assert exchange(opened, provider.id_token(PROGRAM)).status_code == 200
        assert visit(opened, provider)[1].status_code == 200


# Who it is.


def names(repo: Repository) -> list[str]:
    with repo.ctx.database.read() as session:
        return sorted(session.scalars(select(ContributorRow.name)))


def signed_in(repo: Repository, provider: Provider, **person: Any) -> Any:
    provider.person = {"groups": ["staff"], **person}
    return exchange(repo, provider.id_token(PROGRAM)).json()


def test_a_person_is_for_ever_the_same_contributor(repo: Repository, provider: Provider) -> None:
    first = signed_in(repo, provider, sub="1", preferred_username="ann")
    renamed = signed_in(repo, provider, sub="1", preferred_username="bob")
    assert first["name"] == renamed["name"] == "ann"
    # Who comes to the old name at the provider is somebody else here.
    other = signed_in(repo, provider, sub="2", preferred_username="ann")
    assert other["name"] == "ann-2"
    assert names(repo) == ["ann", "ann-2"]


def test_nobody_comes_to_a_name_that_is_another_ones(repo: Repository, provider: Provider) -> None:
    create_token(repo.ctx, "Mia", Role.MAINTAINER)
    admin = repo.principal("ada", "admin")
    invite(repo.ctx, InvitationRequest(name="max"), admin)
    wanted = ["mia", "MAX", "admin", "operator", "me", "coldfusion"]
    got = [
        signed_in(repo, provider, sub=str(number), preferred_username=name)["name"]
        for number, name in enumerate(wanted)
    ]
    assert got == [f"{name}-2" for name in wanted]


def test_many_of_one_name_all_get_one(repo: Repository, provider: Provider) -> None:
    got = {signed_in(repo, provider, sub=str(n), preferred_username="x")["name"] for n in range(12)}
    assert len(got) == 12


def test_at_the_same_moment_a_person_becomes_one_contributor(
    provider: Provider, backend: Backend, tmp_path: Path
) -> None:
    settings = settings_for(provider)
    with (
        backend.database() as url,
        repository(tmp_path / "data", url, **settings) as repo,
        ThreadPoolExecutor(6) as pool,
    ):
        provider.now = lambda: repo.clock.now.timestamp()
        id_tokens = [provider.id_token(PROGRAM)] * 3
        provider.lies = {"jti": "other"}
        id_tokens += [provider.id_token(PROGRAM)] * 3
        answers = list(pool.map(lambda one: exchange(repo, one), id_tokens))
        assert sorted(answer.status_code for answer in answers) == [200] * 2 + [403] * 4
        assert names(repo) == ["ann"]


def test_whoever_may_less_than_before_loses_what_is_more(
    repo: Repository, provider: Provider
) -> None:
    high = signed_in(repo, provider, sub="1", groups=["chiefs"])["token"]
    low = signed_in(repo, provider, sub="1", groups=["staff"])["token"]
    assert repo.client(high).get("/v1/whoami").status_code == 401
    assert repo.client(low).get("/v1/whoami").status_code == 200
    own = repo.token("someone")
    assert signed_in(repo, provider, sub="1", groups=[])["code"] == "sign_in_refused"
    assert repo.client(low).get("/v1/whoami").status_code == 401
    # What the operator has given is not the provider's to take.
    assert repo.client(own).get("/v1/whoami").status_code == 200


def test_the_audit_log_tells_it(repo: Repository, provider: Provider) -> None:
    told = signed_in(repo, provider, sub="1", preferred_username="ann")
    browser, _ = visit(repo, provider)
    browser.post("/logout")
    with repo.ctx.database.read() as session:
        rows = session.scalars(select(AuditRow).order_by(AuditRow.number)).all()
        tokens = {row.id for row in session.scalars(select(TokenRow))}
    found = [(row.by, row.action) for row in rows]
    assert found == [("ann", "identity.created"), ("ann", "sign_in.accepted"),
                     ("ann", "sign_in.accepted"), ("ann", "sign_in.ended")]  # fmt: skip
    assert {rows[1].subject, rows[2].subject} == tokens and rows[3].subject == rows[2].subject
    assert json.loads(rows[0].data) == {"issuer": provider.url, "provider_subject": "1"}
    written = "".join(row.data for row in rows)
    assert told["token"] not in written and "eyJ" not in written


# A provider that misbehaves.


def huge() -> Response:
    return Response(b'{"a": "' + b"x" * (MOST_BYTES + 1) + b'"}')


def elsewhere() -> Response:
    return Response(status=302, headers={"Location": "http://169.254.169.254/"})


def drops() -> Response:
    def dripping() -> Any:
        while True:
            time.sleep(0.05)
            yield b" "

    return Response(dripping())


def packed() -> Response:
    return Response(b"\x1f\x8b", headers={"Content-Encoding": "gzip"})


FAULTS: dict[str, Callable[[], Response]] = {
    "huge": huge,
    "elsewhere": elsewhere,
    "drops": drops,
    "packed": packed,
    "nonsense": lambda: Response(b"<html>"),
    "deep": lambda: Response(b'{"a":' + b"[" * 100_000),
    "a list": lambda: Response(b"[]"),
    "500": lambda: Response(b"{}", status=500),
    "404": lambda: Response(b"{}", status=404),
}
PATHS = ["/.well-known/openid-configuration", "/keys", "/token"]


@pytest.mark.parametrize("fault", FAULTS)
def test_answers_that_are_none_are_told_in_one_sentence(
    fault: str, repo: Repository, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = repo.client()
    answer = provider.answer(start(browser))
    monkeypatch.setattr(repo.ctx.provider, "_fetcher", Fetcher(seconds=0.5))
    provider.faults = {"/token": FAULTS[fault]}
    page = come_back(browser, answer)
    refused(page, 503, "The sign-in provider")
    assert page.headers["retry-after"] == "5"
    provider.faults = {"/keys": FAULTS[fault]}
    told = exchange(repo, provider.id_token(PROGRAM))
    assert (told.status_code, told.json()["code"]) == (503, "provider_unavailable")


def asked(provider: Provider) -> tuple[Asked, list[float]]:
    """Return our side of the provider, and its clock."""
    options = options_of(Settings(**settings_for(provider)))
    assert options is not None
    now = [1000.0]
    return Asked(options, clock=lambda: now[0]), now


@pytest.mark.parametrize(
    "changes",
    [{"issuer": "https://evil.example"}, {"token_endpoint": "http://evil.example/"},
     {"jwks_uri": "file:///etc/passwd"}, {"authorization_endpoint": "http://evil.example/"},
     {"token_endpoint": None}, {"jwks_uri": 7}],
)  # fmt: skip
def test_a_description_that_does_not_fit_is_not_used(
    changes: dict[str, Any], provider: Provider
) -> None:
    text = json.dumps({**provider.description(), **changes})
    provider.faults = {PATHS[0]: lambda: Response(text)}
    ours, _ = asked(provider)
    with pytest.raises(ProviderUnavailable, match="do not fit together"):
        ours.offer()


def test_a_provider_that_is_away_is_asked_again_a_little_later(provider: Provider) -> None:
    ours, now = asked(provider)
    provider.faults = {PATHS[0]: FAULTS["500"]}
    for _ in range(3):
        with pytest.raises(ProviderUnavailable):
            ours.offer()
    assert provider.asked == [PATHS[0]]
    provider.faults = {}
    now[0] += PAUSE_SECONDS
    assert ours.offer().issuer == provider.url


def test_no_provider_at_all_is_told(provider: Provider) -> None:
    settings = settings_for(provider, oidc_issuer="http://127.0.0.1:9")
    options = options_of(Settings(**settings))
    assert options is not None
    with pytest.raises(ProviderUnavailable):
        Asked(options).offer()


def test_keys_are_kept_and_new_ones_found(repo: Repository, provider: Provider) -> None:
    def answer(**changes: Any) -> int:
        provider.lies = {"jti": str(len(provider.asked)), **changes}
        return int(exchange(repo, provider.id_token(PROGRAM)).status_code)

    ours, now = asked(provider)
    object.__setattr__(repo.ctx, "provider", ours)
    assert answer() == 200
    assert answer(sub="2") == 200
    assert provider.asked.count("/keys") == 1
    provider.rotate()
    # Made-up keys cannot make us ask all the time, and new ones are found soon.
    assert answer() == 403
    assert provider.asked.count("/keys") == 1
    now[0] += KEYS_SECONDS + 1
    assert answer() == 200
    assert provider.asked.count("/keys") == 2


def test_a_slow_provider_takes_some_threads_and_not_all(provider: Provider) -> None:
    ours, _ = asked(provider)
    for _ in range(MOST_AT_A_TIME):
        assert ours._places.acquire(blocking=False)
    with pytest.raises(ProviderUnavailable, match="Too many people"):
        ours.offer()
    ours._places.release()
    assert ours.offer().issuer == provider.url


@pytest.mark.parametrize(
    ("secret", "methods"),
    [(None, ["none"]), ("plain", ["client_secret_basic"]), ("any/+ 'one", ["client_secret_post"])],
)
def test_we_say_who_we_are_as_the_provider_wants_it(
    secret: str | None, methods: list[str], provider: Provider, folder: Path
) -> None:
    text = json.dumps({**provider.description(), "token_endpoint_auth_methods_supported": methods})
    provider.faults = {PATHS[0]: lambda: Response(text)}
    provider.clients[DASHBOARD].secret = secret
    settings = settings_for(provider, oidc_client_secret=secret)
    with repository(folder, copied=True, **settings) as opened:
        provider.now = lambda: opened.clock.now.timestamp()
        assert visit(opened, provider)[1].status_code == 200
        provider.clients[DASHBOARD].secret = "another"
        refused(visit(opened, provider)[1], 503, "do not fit together")


def test_the_log_tells_the_operator_why(repo: Repository, provider: Provider, _quiet: Any) -> None:
    provider.faults = {"/token": FAULTS["elsewhere"]}
    visit(repo, provider)
    (entry,) = [one for one in _quiet.entries if one["event"] == "sign-in provider"]
    assert "redirect" in entry["why"] and entry["url"].endswith("/token")
    assert fetching.SECONDS <= 10
