"""Tokens for some models: there what their role allows, elsewhere what a visitor may."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from coldfusion_server.cli import app
from coldfusion_server.services.tokens import create_token
from coldfusion_shared.errors import InvalidRequest, ModelNotFound
from coldfusion_shared.schemas.tokens import Role
from tests.server.backends import only_sqlite
from tests.server.measured import suite
from tests.server.repository import MODEL, Contributor, Repository, body_file
from tests.server.test_access import RULES, call

# Nothing here depends on the database.
pytestmark = only_sqlite

OTHER, PRIVATE = "demo/other", "demo/private"
LIMITED = (Role.READER, Role.CONTRIBUTOR, Role.EVALUATOR, Role.MAINTAINER)
OF_MODELS = [rule for rule in RULES if "{owner}" in rule[1] or "{contribution}" in rule[1]]


def test_elsewhere_it_is_no_more_than_a_visitors(repo: Repository) -> None:
    repo.model(OTHER)
    contribution = repo.contributor("owner").sent(body_file(5), model=OTHER)
    for method, path in OF_MODELS:
        visitors = RULES[method, path][None]
        for role in LIMITED:
            answer = call(repo, method, path, OTHER, role, contribution, [MODEL])
            expected = 403 if visitors == 401 else visitors
            assert answer.status_code == expected, (method, path, role, answer.text)


def test_of_a_private_model_it_tells_nothing(repo: Repository) -> None:
    repo.model(PRIVATE, public=False)
    contribution = repo.contributor("owner").sent(body_file(5), model=PRIVATE)
    for method, path in OF_MODELS:
        for role in LIMITED:
            private = call(repo, method, path, PRIVATE, role, contribution, [MODEL])
            nowhere = call(repo, method, path, "demo/nowhere", role, "0" * 16, [MODEL])
            assert private.status_code == nowhere.status_code, (method, path, role, private.text)
            assert private.status_code in (403, 404)
            if method != "HEAD":
                assert private.json()["code"] == nowhere.json()["code"]


def test_in_its_own_model_it_is_what_its_role_says(repo: Repository) -> None:
    repo.model(PRIVATE, public=False)
    contribution = repo.contributor("owner").sent(body_file(5), model=PRIVATE)
    # None of them changes what the next one finds.
    for method, path in OF_MODELS:
        for role in LIMITED:
            if method in ("GET", "HEAD") or RULES[method, path][role] == 403:
                answer = call(repo, method, path, PRIVATE, role, contribution, [PRIVATE])
                assert answer.status_code == RULES[method, path][role], (method, path, role)
    ann = Contributor(repo, "ann", repo.client(repo.token("ann", models=[PRIVATE])))
    ann.contribute(body_file(6), model=PRIVATE)
    maintainer = repo.client(repo.token("max", "maintainer", [PRIVATE]))
    policy = maintainer.put(f"/v1/models/{PRIVATE}/policy", json={"min_contributions": 3})
    assert policy.status_code == 200


def test_what_is_no_models_is_not_its_business(repo: Repository) -> None:
    repo.model(PRIVATE, public=False)
    token = repo.token("max", "maintainer", [MODEL])
    client = repo.client(token)
    assert client.get("/v1/usage").status_code == 403
    assert client.get("/v1/usage/me").status_code == 200
    assert [model["name"] for model in repo.get("/v1/models", token)["items"]] == [MODEL]
    assert {event["model"] for event in repo.get("/v1/events", token)} == {MODEL}
    assert client.get(f"/v1/models/{MODEL}/contributions?contributor=me").status_code == 200


def test_suites_are_seen_where_their_bases_are(repo: Repository) -> None:
    secret = suite("secret").model_dump(mode="json")
    everywhere = repo.client(repo.token("eve", "evaluator"))
    assert everywhere.put("/v1/suites/secret", json=secret).status_code == 201
    limited = repo.client(repo.token("lim", "evaluator", [MODEL]))
    assert limited.get("/v1/suites/secret").status_code == 404
    other = {**secret, "max_length": 64}
    taken = limited.put("/v1/suites/secret", json=other)
    assert taken.json()["detail"] == "The suite 'secret' is registered with other contents."
    mine = suite("mine").model_dump(mode="json")
    assert limited.put("/v1/suites/mine", json=mine).status_code == 201
    assert [one["name"] for one in limited.get("/v1/suites").json()["items"]] == ["mine"]


def test_one_persons_tokens_do_not_help_each_other(repo: Repository) -> None:
    repo.model(OTHER)
    there = Contributor(repo, "ann", repo.client(repo.token("ann", models=[OTHER])))
    contribution = there.sent(body_file(1), model=OTHER)
    here = Contributor(repo, "ann", repo.client(repo.token("ann", models=[MODEL])))
    path = f"/v1/contributions/{contribution}"
    for answer in (
        here.complete(contribution),
        here.client.get(f"{path}/upload"),
        here.client.post(f"{path}/withdraw", json={}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert there.complete(contribution).status_code == 200


def test_such_tokens_are_made_for_models_that_are_there(repo: Repository) -> None:
    with pytest.raises(ModelNotFound):
        create_token(repo.ctx, "ann", Role.READER, models=["demo/nowhere"])
    for role, models in ((Role.ADMIN, [MODEL]), (Role.READER, [])):
        with pytest.raises(InvalidRequest):
            create_token(repo.ctx, "ann", role, models=models)


def test_the_commands_make_invite_and_list(repo: Repository) -> None:
    where = ["--data-dir", str(repo.folder)]

    def run(*words: str) -> str:
        result = CliRunner().invoke(app, [*words, *where])
        assert result.exit_code == 0, result.output
        return result.stdout

    token = run("token", "create", "ann", "--role", "contributor", "--model", MODEL).strip()
    assert repo.get("/v1/whoami", token)["models"] == [MODEL]
    assert MODEL in run("token", "list")
    codes = run("invite", "create", "--model", MODEL, "--token-expires", "90d", "--count", "2")
    first, second = codes.split()
    joined = repo.client().post(
        "/v1/join", json={"code": first, "name": "bob"}, headers={"Idempotency-Key": "k" * 16}
    )
    assert joined.json()["models"] == [MODEL]
    listed = run("invite", "list").splitlines()
    assert [line.split()[1] for line in listed[1:]] == ["open", "used"]
    assert second not in "".join(listed)
    assert "revoked" in run("invite", "revoke", second.split("_")[1])
