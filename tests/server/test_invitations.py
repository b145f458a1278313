"""Invitations: who may make which, and that each makes one contributor."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
import pytest

from coldfusion_client.api import Api
from coldfusion_client.config import credentials_file, load_credentials
from coldfusion_client.connection import Connection
from coldfusion_client.joining import join as join_by_client
from coldfusion_client.permission import check_permission
from coldfusion_server.cli.operator import OPERATOR
from coldfusion_server.services.invitations import invite, list_invitations
from coldfusion_server.services.paging import Window
from coldfusion_server.services.tokens import revoke_token
from coldfusion_shared.errors import Forbidden
from coldfusion_shared.schemas.invitations import DAY, InvitationRequest
from coldfusion_shared.schemas.tokens import Role
from tests.server.backends import only_sqlite
from tests.server.repository import MODEL, Repository

OTHER = "demo/other"
KEY = "a key of the client's own"


def code(repo: Repository, **wanted: Any) -> str:
    """Return the code of a new invitation by the operator."""
    return invite(repo.ctx, InvitationRequest(**wanted), OPERATOR).code


def join(repo: Repository, code: str, name: str | None = "new", key: str = KEY) -> Any:
    body = {"code": code} if name is None else {"code": code, "name": name}
    return repo.client().post("/v1/join", json=body, headers={"Idempotency-Key": key})


def refused(answer: Any, status: int, kind: str, *words: str) -> None:
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, kind), problem
    for word in words:
        assert word in problem["detail"], problem


def states(repo: Repository) -> list[str]:
    return [one.state.value for one in list_invitations(repo.ctx, OPERATOR, Window()).items]


def test_a_code_makes_one_contributor_whose_token_is_what_it_says(repo: Repository) -> None:
    invited = code(repo, models=[MODEL], token_seconds=30 * DAY)
    answer = join(repo, invited, "ann")
    assert answer.status_code == 200, answer.text
    joined = answer.json()
    assert (joined["name"], joined["role"], joined["models"]) == ("ann", "contributor", [MODEL])
    assert joined["expires_at"] == "2026-07-01T12:00:00Z"
    me = repo.get("/v1/whoami", joined["token"])
    assert (me["name"], me["role"], me["models"]) == ("ann", "contributor", [MODEL])
    assert states(repo) == ["used"]
    refused(join(repo, invited, "eve", "another key of mine"), 403, "invitation_refused", "used")
    repo.clock.advance(days=31)
    assert repo.client(joined["token"]).get("/v1/whoami").json()["code"] == "token_expired"


def test_the_same_key_gets_the_same_token_again_until_it_is_revoked(repo: Repository) -> None:
    invited = code(repo)
    first = join(repo, invited, "ann").json()
    assert join(repo, invited, "ann").json() == first
    revoke_token(repo.ctx, "ann")
    refused(join(repo, invited, "ann"), 403, "invitation_refused", "used")
    assert states(repo) == ["used"]


@only_sqlite
def test_a_code_is_good_for_its_time_and_not_for_another(repo: Repository) -> None:
    invited = code(repo, valid_seconds=DAY)
    for wrong in (invited[:-1], invited + "x", invited.upper(), "cfi_é", "", "cf_1_2", "\0",
                  f"cfi_{'0' * 16}_{'A' * 22}", invited[:21] + "A" * 22):  # fmt: skip
        if wrong != invited:
            refused(join(repo, wrong), 403, "invitation_refused", "no such")
    assert states(repo) == ["open"]
    repo.clock.advance(days=1)
    refused(join(repo, invited), 403, "invitation_refused", "expired")
    assert states(repo) == ["expired"]


@only_sqlite
def test_nobody_joins_under_anothers_name(repo: Repository) -> None:
    repo.token("Alice")
    invited = code(repo)
    for name in ("Alice", "alice", "ALICE", "me", "Operator", "repository"):
        answer = join(repo, invited, name)
        assert answer.status_code in (409, 422), name
    refused(join(repo, invited, "alice"), 409, "name_taken")
    refused(join(repo, invited, None), 422, "invalid_request", "leaves the name to you")
    assert join(repo, invited, "a b").status_code == 422
    assert join(repo, invited, "bob").status_code == 200


@only_sqlite
def test_an_invitation_in_a_name_is_for_that_one(repo: Repository) -> None:
    repo.token("alice")
    invited = code(repo, name="alice", role=Role.EVALUATOR)
    refused(join(repo, invited, "bob"), 422, "invalid_request", "for alice")
    joined = join(repo, invited, None).json()
    assert (joined["name"], joined["role"]) == ("alice", "evaluator")


def test_of_many_who_use_one_code_at_once_one_joins(repo: Repository) -> None:
    invited = code(repo)
    barrier = Barrier(6)

    def use(number: int) -> int:
        barrier.wait()
        return int(join(repo, invited, f"n{number}", f"the key of {number:09}").status_code)

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(use, range(6))) == [200] + [403] * 5


def test_of_many_who_want_one_name_at_once_one_gets_it(repo: Repository) -> None:
    codes = [code(repo) for _ in range(6)]
    barrier = Barrier(6)

    def use(number: int) -> int:
        barrier.wait()
        return int(join(repo, codes[number]).status_code)

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(use, range(6))) == [200] + [409] * 5
    # Who came too late has lost nothing but the name.
    left = [join(repo, one, "late", "another key of mine").status_code for one in codes]
    assert left.count(200) == 1


@only_sqlite
def test_the_client_joins_and_goes_on_with_its_token(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLDFUSION_CONFIG", str(tmp_path / "config"))
    here = "http://repository.test"

    def handle(request: httpx.Request) -> httpx.Response:
        answer = repo.client().request(
            request.method, request.url.path, headers=dict(request.headers), content=request.read()
        )
        return httpx.Response(answer.status_code, content=answer.content)

    def connect(token: str | None) -> Api:
        return Api(Connection(here, token, transport=httpx.MockTransport(handle)))

    with connect(None) as api:
        join_by_client(api, code(repo, models=[MODEL]), "ann")
    with connect(load_credentials(credentials_file()).tokens[here]) as api:
        check_permission(api.whoami(), MODEL)
        with pytest.raises(Forbidden):
            check_permission(api.whoami(), OTHER)


# Who may invite whom.


def post(repo: Repository, token: str, **wanted: Any) -> Any:
    return repo.client(token).post("/v1/invitations", json=wanted)


@only_sqlite
def test_a_maintainer_invites_below_himself_and_an_admin_maintainers(repo: Repository) -> None:
    max_, root = repo.token("max", "maintainer"), repo.token("root", "admin")
    for role in ("reader", "contributor", "evaluator"):
        assert post(repo, max_, role=role).status_code == 201
    refused(post(repo, max_, role="maintainer"), 403, "forbidden", "Only an admin")
    assert post(repo, root, role="maintainer").status_code == 201
    refused(post(repo, root, role="admin"), 403, "forbidden")
    refused(post(repo, max_, name="root"), 409, "name_taken")
    assert post(repo, root, name="max").status_code == 201
    assert post(repo, root, models=[]).status_code == 422
    assert post(repo, root, models=["demo/nowhere"]).status_code == 404
    assert post(repo, root, valid_seconds=10**9).status_code == 422
    for role in ("reader", "contributor", "evaluator"):
        refused(post(repo, repo.token("x", role)), 403, "forbidden")


@only_sqlite
def test_a_name_that_somebody_got_meanwhile_is_not_given_away(repo: Repository) -> None:
    made = post(repo, repo.token("max", "maintainer"), name="ann").json()
    repo.token("ann")
    refused(join(repo, made["code"], None), 409, "name_taken")


@only_sqlite
def test_a_models_maintainer_invites_to_it_alone_and_sees_his_own(repo: Repository) -> None:
    repo.model(OTHER, public=False)
    code(repo)
    one = repo.token("one", "maintainer", models=[MODEL])
    refused(post(repo, one), 403, "forbidden", "all models")
    refused(post(repo, one, models=[MODEL, OTHER]), 403, "forbidden", OTHER)
    made = post(repo, one, models=[MODEL])
    assert made.status_code == 201
    identity = made.json()["invitation"]["id"]
    listed = repo.get("/v1/invitations", one)["items"]
    assert [item["id"] for item in listed] == [identity]
    assert "code" not in listed[0] and listed[0]["made_by"] == "one"
    two = repo.token("two", "maintainer", models=[MODEL])
    assert repo.get("/v1/invitations", two)["items"] == []
    assert len(repo.get("/v1/invitations", repo.token("max", "maintainer"))["items"]) == 2
    path = f"/v1/invitations/{identity}/revoke"
    refused(repo.client(two).post(path), 404, "invitation_not_found")
    assert repo.client(one).post(path).json()["state"] == "revoked"
    assert repo.client(one).post(path).status_code == 200
    refused(join(repo, made.json()["code"]), 403, "invitation_refused", "revoked")


@only_sqlite
def test_with_a_token_go_the_invitations_that_it_made(repo: Repository) -> None:
    leaked = repo.token("max", "maintainer")
    used, left = (post(repo, leaked).json()["code"] for _ in range(2))
    assert join(repo, used, "ann").status_code == 200
    revoke_token(repo.ctx, "max")
    refused(join(repo, left, "bob"), 403, "invitation_refused", "revoked")
    assert sorted(states(repo)) == ["revoked", "used"]


@only_sqlite
def test_what_was_used_cannot_be_revoked_and_says_which_token_it_is(repo: Repository) -> None:
    made = post(repo, repo.token("max", "maintainer")).json()
    token = join(repo, made["code"], "ann").json()["token"]
    path = f"/v1/invitations/{made['invitation']['id']}/revoke"
    answer = repo.client(repo.token("max", "maintainer")).post(path)
    refused(answer, 409, "state_conflict", "ann")
    assert token.split("_")[1] in answer.json()["hint"]


@only_sqlite
def test_a_code_is_kept_as_its_digest_alone(repo: Repository) -> None:
    invited = code(repo)
    token = join(repo, invited, "ann").json()["token"]
    # There may be such a line in what follows the second one, too.
    secrets = [one.split("_", 2)[2].encode() for one in (invited, token)] + [KEY.encode()]
    for path in repo.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(secret in content for secret in secrets), path


@only_sqlite
def test_a_body_without_a_token_is_small(repo: Repository) -> None:
    headers = {"Idempotency-Key": KEY}
    body = {"code": "x" * 5000}
    assert repo.client().post("/v1/join", json=body, headers=headers).status_code == 413
    assert repo.client().post("/v1/join", json={"code": "x"}).status_code == 422
    # No text at all, though JSON can write it.
    odd = b'{"code": "cfi_\\ud800"}'
    headers["Content-Type"] = "application/json"
    assert repo.client().post("/v1/join", content=odd, headers=headers).status_code == 422


@only_sqlite
@pytest.mark.parametrize("wanted", [{"role": "king"}, {"extra": 1}, {"token_seconds": 1}])
def test_what_is_not_known_is_refused(wanted: dict[str, Any], repo: Repository) -> None:
    assert post(repo, repo.token("root", "admin"), **wanted).status_code == 422
