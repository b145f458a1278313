"""Sign-ins that are past go, and nothing else; no id token is good a second time for it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from coldfusion_server.cli.operator import OPERATOR
from coldfusion_server.db.tables import SignInRow, Table, TokenRow
from coldfusion_server.oidc.id_tokens import OLDEST_SECONDS, SKEW_SECONDS
from coldfusion_server.services import auditing, past_sign_ins
from coldfusion_server.services.garbage import collect
from coldfusion_server.services.invitations import invite
from coldfusion_server.services.tokens import revoke_token
from coldfusion_shared.schemas.invitations import InvitationRequest
from tests.oidc.provider import PROGRAM, Provider
from tests.oidc.visit import exchange, settings_for, visit
from tests.server.backends import Backend, both_databases
from tests.server.repository import Repository, repository

pytestmark = both_databases

KEY = "0123456789abcdef"
# Of the settings: how long a browser's session and a program's token are good.
SESSION, TOKEN = timedelta(hours=12), timedelta(hours=168)


@pytest.fixture
def repo(provider: Provider, backend: Backend, tmp_path: Path) -> Iterator[Repository]:
    """A Repository without a model where people sign in, on either database."""
    with (
        backend.database() as url,
        repository(tmp_path / "data", url, **settings_for(provider)) as opened,
    ):
        provider.now = lambda: opened.clock.now.timestamp()
        yield opened


def sign_ins(repo: Repository) -> set[str]:
    """Return the ids of tokens that came of sign-ins that are kept."""
    with repo.ctx.database.read() as session:
        return set(session.scalars(select(SignInRow.token_id)))


def tokens(repo: Repository) -> set[str]:
    with repo.ctx.database.read() as session:
        return set(session.scalars(select(TokenRow.id)))


def of_session(browser: TestClient) -> str:
    return str(browser.cookies["coldfusion_session"]).split(".")[0]


def everything_else(repo: Repository) -> dict[str, object]:
    """Return all rows of all other tables."""
    with repo.ctx.database.read() as session:
        return {
            table.name: sorted(map(repr, session.execute(table.select())))
            for table in Table.metadata.sorted_tables
            if table.name not in ("sign_ins", "tokens", "leases")
        }


def test_nothing_lasts_longer_than_an_id_token(repo: Repository) -> None:
    # The oldest that is taken, by a clock that is slow, was made by one that is fast.
    good = timedelta(seconds=OLDEST_SECONDS + 2 * SKEW_SECONDS)
    assert good * 10 < past_sign_ins.KEPT


def test_what_is_past_goes_and_all_else_stays(repo: Repository, provider: Provider) -> None:
    given = repo.token("bob").split("_")[1]
    expired = repo.token("bob", hours=1).split("_")[1]
    invite(repo.ctx, InvitationRequest(), OPERATOR)
    ended, _ = visit(repo, provider)
    ended.post("/logout")
    left, _ = visit(repo, provider)
    program = exchange(repo, provider.id_token(PROGRAM)).json()["token"]
    program_id = program.split("_")[1]
    all_of_it = {given, expired, of_session(left), program_id, *sign_ins(repo)}
    assert tokens(repo) == all_of_it and len(all_of_it) == 5
    # What has ended is kept as long as its id token might be good anywhere.
    assert past_sign_ins.remove(repo.ctx) == 0
    repo.clock.advance(hours=23)
    assert past_sign_ins.remove(repo.ctx) == 0 and tokens(repo) == all_of_it
    repo.clock.advance(hours=1)
    fresh, _ = visit(repo, provider)
    before = everything_else(repo)
    assert past_sign_ins.count(repo.ctx) == 2
    assert past_sign_ins.remove(repo.ctx) == 2
    assert sign_ins(repo) == {program_id, of_session(fresh)}
    assert tokens(repo) == {given, expired, program_id, of_session(fresh)}
    assert past_sign_ins.remove(repo.ctx) == past_sign_ins.count(repo.ctx) == 0
    assert everything_else(repo) == before
    # Whose session it was is a visitor, who may sign in again.
    assert left.get("/v1/whoami").status_code == 401 and left.get("/").status_code == 200
    assert left.post("/logout").status_code == 200
    assert fresh.get("/v1/whoami").json()["name"] == "ann"
    assert repo.client(program).get("/v1/whoami").json()["name"] == "ann"
    auditing.verify(repo.ctx, None)


def test_a_persons_token_stays_and_says_what_became_of_it(
    repo: Repository, provider: Provider
) -> None:
    program = exchange(repo, provider.id_token(PROGRAM)).json()["token"]
    repo.clock.now += TOKEN
    assert past_sign_ins.remove(repo.ctx) == 1 and sign_ins(repo) == set()
    assert repo.client(program).get("/v1/whoami").json()["code"] == "token_expired"
    revoke_token(repo.ctx, "ann")
    assert repo.client(program).get("/v1/whoami").json()["code"] == "token_revoked"


@pytest.mark.parametrize("key", [KEY, "another key of mine"])
def test_an_id_token_is_good_once_whenever_it_comes_again(
    key: str, repo: Repository, provider: Provider
) -> None:
    made = int(repo.clock.now.timestamp() + SKEW_SECONDS)
    provider.lies = {"iat": made, "exp": made + 10**9}
    id_token = provider.id_token(PROGRAM)
    assert exchange(repo, id_token, KEY).status_code == 200
    revoke_token(repo.ctx, "ann")
    started = repo.clock.now
    limit = OLDEST_SECONDS + 2 * SKEW_SECONDS
    day = past_sign_ins.KEPT.total_seconds()
    for seconds in (0.0, limit - 1, limit, day - 1, day, day + 1, 30 * day):
        repo.clock.now = started + timedelta(seconds=seconds)
        for _ in range(2):
            refused = exchange(repo, id_token, key)
            assert (refused.status_code, refused.json()["code"]) == (403, "sign_in_refused")
            past_sign_ins.remove(repo.ctx)
        assert (sign_ins(repo) == set()) == (seconds >= day)


def test_tokens_that_are_more_than_the_provider_says_are_still_ended(
    repo: Repository, provider: Provider
) -> None:
    provider.person = {**provider.person, "groups": ["chiefs"]}
    high = exchange(repo, provider.id_token(PROGRAM)).json()["token"]
    repo.clock.advance(days=6)
    assert past_sign_ins.remove(repo.ctx) == 0
    provider.person = {**provider.person, "groups": ["staff"]}
    assert exchange(repo, provider.id_token(PROGRAM)).status_code == 200
    assert repo.client(high).get("/v1/whoami").json()["code"] == "token_revoked"


def test_many_go_some_at_a_time(
    repo: Repository, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past_sign_ins, "BATCH", 2)
    for _ in range(5):
        visit(repo, provider)
    repo.clock.advance(days=2)
    assert past_sign_ins.remove(repo.ctx) == 5
    assert tokens(repo) == sign_ins(repo) == set()


def test_garbage_collection_does_it_and_says_so(repo: Repository, provider: Provider) -> None:
    visit(repo, provider)
    repo.clock.advance(days=2)
    assert collect(repo.ctx, "a test", dry_run=True).sign_ins == 1
    assert len(sign_ins(repo)) == 1
    assert collect(repo.ctx, "a test").sign_ins == 1
    assert sign_ins(repo) == set()
    assert collect(repo.ctx, "a test").sign_ins == 0
