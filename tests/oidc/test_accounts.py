"""An account at the provider becomes the contributor who its person was before."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coldfusion_server.cli import app
from coldfusion_server.cli.operator import OPERATOR
from coldfusion_server.services import auditing
from coldfusion_server.services.accounts import join_accounts
from coldfusion_server.services.blocking import block, unblock
from coldfusion_server.services.paging import Window
from coldfusion_shared.errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    StateConflict,
    Unauthenticated,
)
from coldfusion_shared.schemas.contributors import Block
from tests.oidc.provider import PROGRAM, Provider
from tests.oidc.visit import exchange, settings_for, visit
from tests.server.backends import Backend, both_databases, only_sqlite
from tests.server.repository import Repository, repository


@pytest.fixture
def repo(provider: Provider, backend: Backend, tmp_path: Path) -> Iterator[Repository]:
    """A Repository where ann has a token, and has signed in as ann-2."""
    with (
        backend.database() as url,
        repository(tmp_path / "data", url, **settings_for(provider)) as opened,
    ):
        provider.now = lambda: opened.clock.now.timestamp()
        opened.token("ann")
        yield opened


def signed_in(repo: Repository, provider: Provider) -> tuple[str, str]:
    """Sign in by a program; return the name there, and the token."""
    told = exchange(repo, provider.id_token(PROGRAM)).json()
    return told["name"], told["token"]


@both_databases
def test_an_account_is_from_now_on_who_its_person_was(repo: Repository, provider: Provider) -> None:
    own = repo.token("ann")
    browser, _ = visit(repo, provider)
    name, token = signed_in(repo, provider)
    assert name == "ann-2"
    given = repo.token("ann-2")
    assert join_accounts(repo.ctx, "ann", "ann-2", OPERATOR) == 2
    # Nobody goes on under the name from before, and what came of no sign-in stays.
    assert browser.get("/v1/whoami").status_code == 401
    assert repo.client(token).get("/v1/whoami").json()["code"] == "token_revoked"
    assert [repo.client(one).get("/v1/whoami").json()["name"] for one in (own, given)] == [
        "ann",
        "ann-2",
    ]
    provider.lies = {"jti": "another"}
    assert signed_in(repo, provider)[0] == "ann"
    assert visit(repo, provider)[0].get("/v1/whoami").json()["name"] == "ann"
    (noted,) = auditing.list_entries(repo.ctx, OPERATOR, Window(), action="identity.joined").items
    assert (noted.by, noted.subject, noted.data["before"]) == ("operator", "ann", "ann-2")
    assert noted.data["accounts"] == [[provider.url, provider.person["sub"]]]
    # Another account of the name comes to neither of them.
    provider.person = {**provider.person, "sub": "another"}
    assert signed_in(repo, provider)[0] == "ann-3"


@both_databases
def test_what_cannot_be_joined_is_said_and_changes_nothing(
    repo: Repository, provider: Provider
) -> None:
    _, token = signed_in(repo, provider)
    repo.token("bob")
    maintainer = repo.principal("max", "maintainer")
    for name, before, who, refusal in (
        ("ann", "ann-2", None, Unauthenticated),
        ("ann", "ann-2", maintainer, Forbidden),
        ("ann", "ann", OPERATOR, InvalidRequest),
        ("nobody", "ann-2", OPERATOR, NotFound),
        ("ann", "nobody", OPERATOR, NotFound),
        ("ann", "an\0n-2", OPERATOR, NotFound),
        ("ann", "bob", OPERATOR, StateConflict),
    ):
        with pytest.raises(refusal):
            join_accounts(repo.ctx, name, before, who)
    # No way around a block, neither of whoever comes nor of whoever they would be.
    for blocked in ("ann-2", "ann"):
        block(repo.ctx, blocked, Block(reason="x"), OPERATOR)
        with pytest.raises(StateConflict, match="blocked"):
            join_accounts(repo.ctx, "ann", "ann-2", OPERATOR)
        unblock(repo.ctx, blocked, OPERATOR)
    assert repo.client(token).get("/v1/whoami").json()["name"] == "ann-2"


@only_sqlite
def test_the_command_says_what_it_did(repo: Repository, provider: Provider) -> None:
    # Commands go by the real clock.
    repo.clock.now = datetime.now(UTC)
    signed_in(repo, provider)
    words = ["contributor", "join-account", "ann", "--signed-in-as", "ann-2"]
    result = CliRunner().invoke(app, [*words, "--data-dir", str(repo.folder)])
    assert result.exit_code == 0, result.output
    assert "Who signed in as ann-2 is ann with the next sign-in." in result.stdout
    assert "ended: 1" in result.stdout
