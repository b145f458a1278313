"""Whoever is blocked comes in by no sign-in, under no name, and is told no more than that."""

from __future__ import annotations

from pathlib import Path

import pytest

from coldfusion_server.api.session import COOKIE
from coldfusion_server.cli.operator import OPERATOR
from coldfusion_server.services.blocking import block, unblock
from coldfusion_shared.schemas.contributors import Block
from tests.oidc.provider import PROGRAM, Provider
from tests.oidc.visit import exchange, settings_for, visit
from tests.server.backends import Backend, both_databases
from tests.server.repository import Repository, repository

WHY = Block(reason="poisoned v4")
KEY = "0123456789abcdef"


def keep_out(repo: Repository, name: str = "ann") -> None:
    block(repo.ctx, name, WHY, OPERATOR)


def test_a_browser_is_signed_out_and_not_in_again(repo: Repository, provider: Provider) -> None:
    browser, _ = visit(repo, provider)
    assert browser.get("/v1/whoami").json()["name"] == "ann"
    keep_out(repo)
    assert browser.get("/v1/whoami").status_code == 401
    other, page = visit(repo, provider)
    assert page.status_code == 403 and "You cannot sign in here." in page.text
    assert "blocked" not in page.text and WHY.reason not in page.text
    assert COOKIE not in page.headers.get("set-cookie", "")
    assert other.get("/v1/whoami").status_code == 401
    unblock(repo.ctx, "ann", OPERATOR)
    assert browser.get("/v1/whoami").json()["name"] == "ann"
    assert visit(repo, provider)[0].get("/v1/whoami").json()["name"] == "ann"


@both_databases
def test_a_program_gets_no_token_not_even_the_same_again(
    provider: Provider, backend: Backend, tmp_path: Path
) -> None:
    with (
        backend.database() as url,
        repository(tmp_path / "data", url, **settings_for(provider)) as repo,
    ):
        provider.now = lambda: repo.clock.now.timestamp()
        id_token = provider.id_token(PROGRAM)
        told = exchange(repo, id_token, KEY).json()
        keep_out(repo)
        provider.lies = {"jti": "another"}
        for tried in (id_token, provider.id_token(PROGRAM)):
            answer = exchange(repo, tried, KEY)
            assert (answer.status_code, answer.json()["code"]) == (403, "sign_in_refused")
            assert "You cannot sign in here." in answer.json()["detail"]
            assert "blocked" not in answer.text and WHY.reason not in answer.text
        assert repo.client(told["token"]).get("/v1/whoami").json()["code"] == "token_revoked"
        unblock(repo.ctx, "ann", OPERATOR)
        assert exchange(repo, id_token, KEY).json() == told
        assert repo.client(told["token"]).get("/v1/whoami").status_code == 200


def test_another_name_at_the_provider_helps_nothing(repo: Repository, provider: Provider) -> None:
    exchange(repo, provider.id_token(PROGRAM))
    keep_out(repo)
    provider.person = {**provider.person, "preferred_username": "angel"}
    assert exchange(repo, provider.id_token(PROGRAM)).status_code == 403
    # Who has the name is somebody else, whom nobody keeps out.
    provider.person = {**provider.person, "sub": "another", "preferred_username": "ann"}
    assert exchange(repo, provider.id_token(PROGRAM)).json()["name"] == "ann-2"


@pytest.mark.parametrize("groups", [[], ["staff"]])
def test_less_at_the_provider_counts_while_somebody_is_blocked(
    groups: list[str], repo: Repository, provider: Provider
) -> None:
    provider.person = {**provider.person, "groups": ["chiefs"]}
    high = exchange(repo, provider.id_token(PROGRAM)).json()["token"]
    keep_out(repo)
    provider.person = {**provider.person, "groups": groups}
    assert exchange(repo, provider.id_token(PROGRAM)).status_code == 403
    unblock(repo.ctx, "ann", OPERATOR)
    assert repo.client(high).get("/v1/whoami").status_code == 401
