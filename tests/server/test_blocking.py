"""Blocking: no way in is left, what was contributed stays, and unblocking gives back what was."""

from __future__ import annotations

from datetime import timedelta

import pytest

from coldfusion_server.api.session import COOKIE
from coldfusion_server.cli.operator import OPERATOR
from coldfusion_server.services import auditing, blocking, tokens
from coldfusion_server.services.invitations import invite
from coldfusion_server.services.paging import Window
from coldfusion_shared.errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    StateConflict,
    Unauthenticated,
)
from coldfusion_shared.schemas.contributors import Block
from coldfusion_shared.schemas.evaluations import OWN_EVALUATOR
from coldfusion_shared.schemas.invitations import InvitationRequest
from coldfusion_shared.schemas.tokens import Role
from tests.server.backends import both_databases, only_sqlite
from tests.server.repository import MODEL, Repository, body_file
from tests.server.test_cli import Run, failed, run  # noqa: F401
from tests.server.test_garbage import one_round
from tests.server.test_invitations import KEY, code, join, post, refused
from tests.server.test_quarantine import held, strict  # noqa: F401
from tests.server.test_round_way import accepted

WHY = Block(reason="poisoned v4")


def block(repo: Repository, name: str = "mal") -> blocking.Blocked:
    return blocking.block(repo.ctx, name, WHY, OPERATOR)


def unblock(repo: Repository, name: str = "mal") -> blocking.Blocked:
    return blocking.unblock(repo.ctx, name, OPERATOR)


def status(repo: Repository, token: str) -> int:
    return repo.client(token).get("/v1/whoami").status_code


@both_databases
def test_every_token_is_refused_at_once_and_given_back(repo: Repository) -> None:
    held_by_him = [repo.token("mal", role) for role in ("contributor", "admin")]
    held_by_him.append(repo.token("mal", models=[MODEL]))
    revoked, expired = repo.token("mal"), repo.token("mal", hours=1)
    tokens.revoke_token(repo.ctx, revoked.split("_")[1])
    other = repo.token("ann")
    assert block(repo).tokens == 4
    repo.clock.advance(hours=2)
    for token in [*held_by_him, revoked, expired]:
        refused(repo.client(token).get("/v1/whoami"), 401, "token_revoked", "blocked")
        refused(repo.client(token).get("/v1/models"), 401, "token_revoked", "blocked")
    # Of what the operator wrote down he is told nothing.
    assert WHY.reason not in repo.client(held_by_him[0]).get("/v1/whoami").text
    assert status(repo, other) == 200
    assert unblock(repo).tokens == 3
    assert [status(repo, token) for token in held_by_him] == [200] * 3
    refused(repo.client(revoked).get("/v1/whoami"), 401, "token_revoked", "was revoked")
    refused(repo.client(expired).get("/v1/whoami"), 401, "token_expired")


@only_sqlite
def test_a_browser_is_a_visitors_and_cannot_log_in(repo: Repository) -> None:
    token = repo.token("mal")
    browser = repo.client()
    browser.post("/login", data={"token": token})
    assert browser.get("/v1/whoami").json()["name"] == "mal"
    block(repo)
    assert browser.get("/v1/whoami").status_code == 401
    assert 'href="/login' in browser.get("/").text
    again = repo.client().post("/login", data={"token": token})
    assert again.status_code == 401 and "blocked" in again.text
    assert COOKIE not in again.headers.get("set-cookie", "")


@both_databases
def test_no_way_in_is_made_for_whoever_is_blocked(repo: Repository) -> None:
    repo.token("mal")
    block(repo)
    with pytest.raises(StateConflict) as caught:
        tokens.create_token(repo.ctx, "mal", Role.READER)
    assert "contributor unblock mal" in (caught.value.hint or "")
    with pytest.raises(StateConflict):
        invite(repo.ctx, InvitationRequest(name="mal"), OPERATOR)
    unblock(repo)
    tokens.create_token(repo.ctx, "mal", Role.READER)
    invite(repo.ctx, InvitationRequest(name="mal"), OPERATOR)


@both_databases
def test_invitations_for_and_by_whoever_is_blocked_are_good_for_nobody(repo: Repository) -> None:
    maintainer = repo.token("mal", "maintainer")
    in_his_name, of_another = code(repo, name="mal"), code(repo)
    of_his = post(repo, maintainer).json()["code"]
    block(repo)
    for invited, name in ((in_his_name, None), (in_his_name, "mal"), (of_his, "sock")):
        answer = join(repo, invited, name)
        refused(answer, 403, "invitation_refused", "not good any more")
        assert "mal" not in answer.text and WHY.reason not in answer.text
    assert join(repo, of_another, "ann").status_code == 200
    unblock(repo)
    assert join(repo, in_his_name, None).json()["name"] == "mal"
    assert join(repo, of_his, "sock").status_code == 200


@only_sqlite
def test_an_answer_that_was_lost_is_not_given_again(repo: Repository) -> None:
    invited = code(repo)
    assert join(repo, invited, "mal").status_code == 200
    block(repo)
    refused(join(repo, invited, "mal", KEY), 403, "invitation_refused", "used before")


@only_sqlite
def test_an_upload_that_was_begun_ends_nowhere(repo: Repository) -> None:
    mal = repo.contributor("mal")
    contribution = mal.sent(body_file(1))
    block(repo)
    assert mal.complete(contribution).status_code == 401
    assert mal.declare(body_file(2)).status_code == 401
    repo.work()
    assert mal.receipt(contribution)["state"] == "declared"


@both_databases
def test_what_was_contributed_stays_and_is_told(
    strict: Repository,  # noqa: F811
) -> None:
    repo = strict
    odd = held(repo)
    fine, _ = accepted(repo, [1, 2])
    done = block(repo, "odd")
    assert [(one.id, one.model, one.round, one.state) for one in done.waiting] == [
        (odd, MODEL, 1, "quarantined")
    ]
    assert [(one.id, one.state) for one in block(repo, "c1").waiting] == [(fine, "accepted")]
    assert repo.contributor("reader").receipt(fine)["state"] == "accepted"
    assert repo.contributor("reader").receipt(odd)["state"] == "quarantined"


@only_sqlite
def test_it_is_noted_who_did_it_and_why_once(repo: Repository) -> None:
    repo.token("mal")
    admin = repo.principal("ada", "admin")
    assert blocking.block(repo.ctx, "mal", WHY, admin).changed
    again = blocking.block(repo.ctx, "mal", Block(reason="another"), admin)
    assert not again.changed and again.person.reason == WHY.reason
    assert blocking.unblock(repo.ctx, "mal", OPERATOR).changed
    assert not blocking.unblock(repo.ctx, "mal", OPERATOR).changed
    found = auditing.list_entries(repo.ctx, OPERATOR, Window(None, 200)).items[::-1]
    noted = [
        (one.by, one.action, one.subject, one.reason)
        for one in found
        if one.action.startswith("contributor.")
    ]
    assert noted == [
        ("ada", "contributor.blocked", "mal", "poisoned v4"),
        ("operator", "contributor.unblocked", "mal", None),
    ]


@only_sqlite
def test_admins_decide_it(repo: Repository) -> None:
    repo.token("mal")
    for who, refusal in ((None, Unauthenticated), (repo.principal("max", "maintainer"), Forbidden)):
        with pytest.raises(refusal):
            blocking.block(repo.ctx, "mal", WHY, who)
        with pytest.raises(refusal):
            blocking.unblock(repo.ctx, "mal", who)
        with pytest.raises(refusal):
            blocking.list_people(repo.ctx, who)
    assert blocking.list_people(repo.ctx, OPERATOR, only_blocked=True) == []


@only_sqlite
@pytest.mark.parametrize("name", ["nobody", "MAL", "", "a\0b", "é"])
def test_a_name_that_is_nobodys_is_said(name: str, repo: Repository) -> None:
    repo.token("mal")
    with pytest.raises(NotFound):
        block(repo, name)
    with pytest.raises(NotFound):
        unblock(repo, name)


@only_sqlite
def test_the_repositorys_own_evaluator_is_not_somebody(repo: Repository) -> None:
    tokens.built_in(repo.ctx, OWN_EVALUATOR, Role.EVALUATOR)
    with pytest.raises(InvalidRequest):
        block(repo, OWN_EVALUATOR)


@only_sqlite
def test_the_commands_block_list_and_unblock(
    strict: Repository,  # noqa: F811
    run: Run,  # noqa: F811
) -> None:
    repo = strict
    odd = held(repo)
    repo.token("ann")
    said = run("contributor", "block", "odd", "--reason", "sends \x1b[31mnoise")
    assert said.code == 0, said.err
    assert odd in said.out and "contribution remove" in said.out and "reject" in said.out
    assert "refused from now on: 1" in said.out
    assert "Nothing of theirs waits" in run("contributor", "block", "ann", "--reason", "x").out
    assert run("contributor", "unblock", "ann").code == 0
    listed = run("contributor", "list").out.splitlines()
    assert [line.split()[0] for line in listed] == ["NAME", "ann", "odd"]
    assert "\x1b" not in "".join(listed) and "noise" in listed[2] and "noise" not in listed[1]
    (only,) = run("contributor", "list", "--blocked", "--json").json()
    assert only["name"] == "odd" and only["blocked_at"]
    assert "was blocked before" in run("contributor", "block", "odd", "--reason", "y").out
    failed(run("token", "create", "odd", "--role", "reader"), "blocked", "contributor unblock odd")
    failed(run("contributor", "block", "nobody", "--reason", "x"), "nobody", "contributor list")
    failed(run("contributor", "block", "odd", "--reason", "  "), "reason")
    lines = {line.split()[1]: line for line in run("token", "list").out.splitlines()[1:]}
    assert not lines["odd"].endswith("-") and lines["ann"].endswith("-")
    done = run("contributor", "unblock", "odd", "--json").json()
    assert done["changed"] and done["tokens"] == 1
    assert run("contributor", "list", "--blocked").out == "Nobody is blocked.\n"
    assert "is not blocked." in run("contributor", "unblock", "odd").out


@only_sqlite
def test_what_is_in_bases_is_counted(repo: Repository, run: Run) -> None:  # noqa: F811
    one_round(repo)
    done = run("contributor", "block", "ann", "--reason", "x")
    assert "In published bases: 1." in done.out and "model replay" in done.out
    assert "Nothing of theirs waits" in done.out


@only_sqlite
def test_webhooks_that_go_on_sending_are_told(repo: Repository, run: Run) -> None:  # noqa: F811
    repo.model("demo/private", public=False)
    admin = repo.client(repo.token("ada", "admin"))
    mal = repo.client(repo.token("mal", "maintainer"))
    url = "https://ci.example.org/x?token=t0psecret"
    made = [
        mal.post("/v1/webhooks", json={"model": model, "url": url}).json()["webhook"]["id"]
        for model in ("demo/private", MODEL, MODEL)
    ]
    others = admin.post("/v1/webhooks", json={"url": url}).json()["webhook"]["id"]
    mal.patch(f"/v1/webhooks/{made[2]}", json={"active": False})
    assert {(one.id, one.model) for one in block(repo).webhooks} == {
        (made[0], "demo/private"), (made[1], MODEL),
    }  # fmt: skip
    said = run("contributor", "block", "mal", "--reason", "x").out
    assert "webhook delete WEBHOOK" in said and "https://ci.example.org" in said
    assert "t0psecret" not in said and others not in said and made[2] not in said
    repo.token("ann")
    assert "webhook" not in run("contributor", "block", "ann", "--reason", "x").out.lower()


@only_sqlite
def test_time_alone_unblocks_nobody(repo: Repository) -> None:
    token = repo.token("mal")
    block(repo)
    repo.clock.now += timedelta(days=4000)
    assert status(repo, token) == 401
