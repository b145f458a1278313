"""Who may do what: every route for every role, tokens good and bad, private models."""

from __future__ import annotations

import http.cookies
from typing import Any

import pytest
from fastapi.routing import APIRoute

from coldfusion_server.hub.routing import HubRoute
from coldfusion_server.services.tokens import create_token, revoke_token
from coldfusion_shared.errors import InvalidRequest, TokenNotFound
from coldfusion_shared.schemas.tokens import Role
from tests.server.asgi import Answer, request
from tests.server.backends import only_sqlite
from tests.server.measured import suite
from tests.server.repository import MODEL, Repository, body_file, declaration

# Nothing here depends on the database.
pytestmark = only_sqlite

ROLES = (None, *Role)
PRIVATE = "demo/private"
ALL = {role: 200 for role in ROLES}
SIGNED_IN = {**ALL, None: 401}
CONTRIBUTORS = {**dict.fromkeys(ROLES, 403), None: 401, "contributor": 201, "maintainer": 201,
                "admin": 201}  # fmt: skip
EVALUATORS = {**dict.fromkeys(ROLES, 403), None: 401, "evaluator": 201, "maintainer": 201,
              "admin": 201}  # fmt: skip
MAINTAINERS = {**dict.fromkeys(ROLES, 403), None: 401, "maintainer": 409, "admin": 409}
SETTERS = {**dict.fromkeys(ROLES, 403), None: 401, "maintainer": 200, "admin": 200}
# Theirs is somebody else's contribution: nobody but its contributor gets at its upload.
OWNERS = {**dict.fromkeys(ROLES, 403), None: 401}

# Theirs is the same suite, which is new only once.
REGISTRARS = {**EVALUATORS, "maintainer": 200, "admin": 200}

# There is no such replay, and nothing fused that could be left out of one.
SEEKERS = {**SETTERS, "maintainer": 404, "admin": 404}
REPLAYERS = {**SETTERS, "maintainer": 422, "admin": 422}

INVITERS = {**SETTERS, "maintainer": 201, "admin": 201}

ADMINS = {**SETTERS, "maintainer": 403}

# There is no candidate.
MEASURERS = {**SETTERS, "evaluator": 200}
LOOKERS = {**SEEKERS, "evaluator": 404}

# There is none of v0, nor such a suite.
NOWHERE = dict.fromkeys(ROLES, 404)

# Method and path -> what each role gets of a public model. A new route has to be added here.
RULES: dict[tuple[str, str], dict[Any, int]] = {
    ("GET", "/v1"): ALL,
    ("GET", "/healthz"): ALL,
    ("GET", "/readyz"): ALL,
    ("GET", "/metrics"): SETTERS,
    ("GET", "/v1/signing-key"): ALL,
    ("GET", "/v1/whoami"): SIGNED_IN,
    ("GET", "/v1/models"): ALL,
    ("GET", "/v1/models/{owner}/{name}"): ALL,
    ("GET", "/v1/models/{owner}/{name}/head"): ALL,
    ("GET", "/v1/models/{owner}/{name}/bases"): ALL,
    ("GET", "/v1/models/{owner}/{name}/bases/{version}"): ALL,
    ("GET", "/v1/models/{owner}/{name}/bases/{version}/files/{path:path}"): ALL,
    ("HEAD", "/v1/models/{owner}/{name}/bases/{version}/files/{path:path}"): ALL,
    ("GET", "/v1/models/{owner}/{name}/bases/{version}/differences"): ALL,
    ("GET", "/v1/models/{owner}/{name}/bases/{version}/differences/{sha256}"): NOWHERE,
    ("GET", "/v1/models/{owner}/{name}/bases/{version}/evaluations"): ALL,
    ("POST", "/v1/models/{owner}/{name}/bases/{version}/evaluations"): EVALUATORS,
    ("POST", "/v1/models/{owner}/{name}/bases/{version}/evaluate"): SETTERS,
    ("GET", "/v1/models/{owner}/{name}/bases/{version}/agreement"): ALL,
    ("GET", "/v1/models/{owner}/{name}/bases/{version}/signature"): ALL,
    ("GET", "/v1/models/{owner}/{name}/bases/{version}/card"): ALL,
    ("GET", "/v1/models/{owner}/{name}/bases/{version}/card/gain.svg"): ALL,
    ("GET", "/v1/models/{owner}/{name}/figures/{figure}.{kind}"): ALL,
    ("GET", "/v1/models/{owner}/{name}/rounds/{number}/figures/{figure}.{kind}"): ALL,
    ("GET", "/v1/suites"): ALL,
    ("GET", "/v1/suites/{name}"): NOWHERE,
    ("PUT", "/v1/suites/{name}"): REGISTRARS,
    ("GET", "/v1/models/{owner}/{name}/rounds"): ALL,
    ("GET", "/v1/models/{owner}/{name}/rounds/{number}"): ALL,
    ("POST", "/v1/models/{owner}/{name}/rounds/{number}/close"): MAINTAINERS,
    ("POST", "/v1/models/{owner}/{name}/rounds/{number}/cancel"): SETTERS,
    ("POST", "/v1/models/{owner}/{name}/rounds/{number}/again"): MAINTAINERS,
    ("GET", "/v1/models/{owner}/{name}/candidates"): MEASURERS,
    ("GET", "/v1/models/{owner}/{name}/rounds/{number}/candidates"): MEASURERS,
    ("GET", "/v1/models/{owner}/{name}/candidates/{candidate}"): LOOKERS,
    ("GET", "/v1/models/{owner}/{name}/candidates/{candidate}/files/{path:path}"): LOOKERS,
    ("HEAD", "/v1/models/{owner}/{name}/candidates/{candidate}/files/{path:path}"): LOOKERS,
    ("GET", "/v1/models/{owner}/{name}/candidates/{candidate}/evaluations"): LOOKERS,
    ("POST", "/v1/models/{owner}/{name}/candidates/{candidate}/evaluations"): LOOKERS,
    ("GET", "/v1/models/{owner}/{name}/heads"): ALL,
    ("POST", "/v1/models/{owner}/{name}/rollback"): SETTERS,
    ("GET", "/v1/models/{owner}/{name}/replays"): SETTERS,
    ("POST", "/v1/models/{owner}/{name}/replays"): REPLAYERS,
    ("GET", "/v1/models/{owner}/{name}/replays/{replay}"): SEEKERS,
    ("POST", "/v1/models/{owner}/{name}/replays/{replay}/publish"): SEEKERS,
    ("POST", "/v1/models/{owner}/{name}/replays/{replay}/discard"): SEEKERS,
    ("GET", "/v1/models/{owner}/{name}/contributions"): ALL,
    ("POST", "/v1/models/{owner}/{name}/contributions"): CONTRIBUTORS,
    ("GET", "/v1/contributions/{contribution}"): ALL,
    ("GET", "/v1/contributors/{contributor}"): ALL,
    ("GET", "/v1/contributions/{contribution}/upload"): OWNERS,
    ("POST", "/v1/contributions/{contribution}/complete"): OWNERS,
    ("POST", "/v1/contributions/{contribution}/withdraw"): SETTERS,
    ("POST", "/v1/contributions/{contribution}/release"): MAINTAINERS,
    ("POST", "/v1/contributions/{contribution}/reject"): MAINTAINERS,
    ("PUT", "/v1/uploads/{upload}/{number}"): dict.fromkeys(ROLES, 403),
    ("GET", "/v1/events"): ALL,
    ("GET", "/v1/fusion"): ALL,
    ("PUT", "/v1/models/{owner}/{name}/policy"): SETTERS,
    ("GET", "/v1/models/{owner}/{name}/usage"): ALL,
    ("GET", "/v1/waiting"): ALL,
    ("GET", "/v1/health"): SETTERS,
    ("GET", "/v1/usage"): SETTERS,
    ("GET", "/v1/usage/me"): SIGNED_IN,
    ("GET", "/v1/invitations"): SETTERS,
    ("POST", "/v1/invitations"): INVITERS,
    ("POST", "/v1/invitations/{invitation}/revoke"): SEEKERS,
    ("GET", "/v1/webhooks"): SETTERS,
    ("POST", "/v1/webhooks"): INVITERS,
    ("GET", "/v1/webhooks/{webhook}"): SEEKERS,
    ("PATCH", "/v1/webhooks/{webhook}"): SEEKERS,
    ("DELETE", "/v1/webhooks/{webhook}"): SEEKERS,
    ("POST", "/v1/webhooks/{webhook}/rotate"): SEEKERS,
    ("POST", "/v1/webhooks/{webhook}/ping"): SEEKERS,
    ("GET", "/v1/webhooks/{webhook}/deliveries"): SEEKERS,
    ("GET", "/v1/webhooks/{webhook}/deliveries/{delivery}"): SEEKERS,
    ("POST", "/v1/webhooks/{webhook}/deliveries/{delivery}/redeliver"): SEEKERS,
    ("GET", "/v1/audit"): ADMINS,
    # There is no such invitation, whoever asks.
    ("POST", "/v1/join"): dict.fromkeys(ROLES, 403),
    # There is no provider here, whoever asks; tests/oidc has one.
    ("GET", "/v1/sign-in"): NOWHERE,
    ("POST", "/v1/sign-in"): NOWHERE,
}  # fmt: skip
# What is sent along, by the last word of the path.
DECISIONS: dict[str, Any] = {
    "cancel": {"reason": "why"},
    "again": {},
    "rollback": {"version": "v0", "reason": "why"},
    "withdraw": {"reason": "why"},
    "release": {"reason": "why"},
    "reject": {"reason": "why"},
}
# It never ends; see test_events.py.
STREAMS = {("GET", "/v1/events/stream")}


def api_routes(repo: Repository) -> set[tuple[str, str]]:
    return {
        (method, path)
        for path, methods in _paths(repo)
        for method in methods
        if path.startswith("/v1") or path in ("/healthz", "/metrics", "/readyz")
    } - {("GET", "/v1/openapi.json"), ("HEAD", "/v1/openapi.json")}


def _paths(repo: Repository) -> list[tuple[str, set[str]]]:
    """Return the application's routes, those of included routers among them."""
    found: list[tuple[str, set[str]]] = []
    waiting: list[tuple[str, Any]] = [("", route) for route in repo.app.routes]
    while waiting:
        prefix, route = waiting.pop()
        if isinstance(route, APIRoute):
            found.append((prefix + route.path, set(route.methods or ())))
        elif hasattr(route, "original_router"):
            inner = route.original_router
            more = getattr(route.include_context, "prefix", "")
            waiting += [(prefix + more, item) for item in inner.routes]
        # The hub door has tests of its own.
        elif hasattr(route, "methods") and not isinstance(route, HubRoute):
            found.append((prefix + route.path, set(route.methods or ())))
    return found


def test_every_route_of_the_api_has_a_rule(repo: Repository) -> None:
    assert api_routes(repo) == set(RULES) | STREAMS


def call(
    repo: Repository,
    method: str,
    path: str,
    model: str,
    role: str | None,
    of: str,
    models: list[str] | None = None,
) -> Any:
    """
    Call a route of `model` as somebody of `role`; `of` is another one's contribution there.

    The token is for `models` only; null: for all.
    """
    owner, name = model.split("/")
    filled = path.replace("{path:path}", "config.json").format(
        owner=owner,
        name=name,
        version="v0",
        number="1",
        contribution=of,
        contributor="owner",
        upload=f"{of}.0",
        sha256="0" * 64,
        replay="0" * 16,
        candidate="0" * 16,
        invitation="0" * 16,
        webhook="0" * 16,
        delivery="msg_0",
        figure="norms" if "/rounds/" in path else "course",
        kind="json",
    )
    token = None if role is None else repo.token(f"someone-{role}", role, models)
    headers = {"Idempotency-Key": "0123456789abcdef"} if method == "POST" else {}
    body = _body(method, path, model, role)
    return repo.client(token).request(method, filled, headers=headers, json=body)


def _body(method: str, path: str, model: str, role: str | None) -> Any:
    """Return what a request has to send; null: nothing."""
    if method == "POST" and path.endswith("/contributions"):
        return declaration(body_file(list(ROLES).index(role) + 10))
    if path.endswith("/policy"):
        return {"min_contributions": 3}
    if path == "/v1/suites/{name}" and method == "PUT":
        return suite(model.split("/")[1]).model_dump(mode="json")
    last = path.rsplit("/", 1)[1]
    if last in DECISIONS:
        return DECISIONS[last]
    return {
        ("POST", "replays"): {"without": ["0" * 16]},
        ("POST", "evaluations"): {"suite": "s", "protocol": "frozen", "scores": {"a": 50.0}},
        ("POST", "invitations"): {"name": f"invited-{role}"},
        ("POST", "webhooks"): {"model": model, "url": "https://ci.example.org/"},
        ("PATCH", "{webhook}"): {"active": False},
        ("POST", "join"): {"code": f"cfi_{'0' * 16}_{'A' * 22}", "name": "new"},
        ("POST", "sign-in"): {"id_token": "x"},
    }.get((method, last))


@pytest.mark.parametrize(("method", "path"), list(RULES))
def test_each_role_gets_what_the_rule_says(method: str, path: str, repo: Repository) -> None:
    contribution = repo.contributor("owner").sent(body_file(5))
    for role, status in RULES[method, path].items():
        answer = call(repo, method, path, MODEL, role, contribution)
        assert answer.status_code == status, (role, answer.text)
        if status >= 400 and method != "HEAD":
            assert answer.headers["content-type"] == "application/problem+json"
        if status == 401:
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("method", "path"), [rule for rule in RULES if "{owner}" in rule[1] or "{contrib" in rule[1]]
)
def test_a_private_model_does_not_exist_for_visitors(
    method: str, path: str, repo: Repository
) -> None:
    repo.model(PRIVATE, public=False)
    owner = repo.contributor("owner")
    contribution = owner.sent(body_file(5), model=PRIVATE)
    private = call(repo, method, path, PRIVATE, None, contribution)
    nowhere = call(repo, method, path, "demo/nowhere", None, "0" * 16)
    assert private.status_code == nowhere.status_code
    assert private.status_code in (401, 404)
    if method != "HEAD":
        assert private.json()["code"] == nowhere.json()["code"]
    assert call(repo, method, path, PRIVATE, "reader", contribution).status_code in (
        200, 403, RULES[method, path]["reader"],
    )  # fmt: skip


def test_visitors_lists_leave_private_models_out(repo: Repository) -> None:
    repo.model(PRIVATE, public=False)
    assert [m["name"] for m in repo.get("/v1/models")["items"]] == [MODEL]
    everything = repo.get("/v1/models", repo.token("r", "reader"))["items"]
    assert [m["name"] for m in everything] == [PRIVATE, MODEL]


def test_a_contributor_gets_at_no_other_contributors_upload(repo: Repository) -> None:
    contribution = repo.contributor("ann").sent(body_file())
    bob = repo.contributor("bob")
    for answer in (
        bob.complete(contribution),
        bob.client.get(f"/v1/contributions/{contribution}/upload"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert repo.contributor("ann").complete(contribution).status_code == 200


def test_my_contributions_are_mine(repo: Repository) -> None:
    ann, bob = repo.contributor("ann"), repo.contributor("bob")
    mine = ann.sent(body_file(1))
    bob.sent(body_file(2))
    path = f"/v1/models/{MODEL}/contributions"
    assert [c["id"] for c in ann.client.get(f"{path}?contributor=me").json()["items"]] == [mine]
    assert [c["id"] for c in bob.client.get(f"{path}?contributor=ann").json()["items"]] == [mine]
    assert repo.client().get(f"{path}?contributor=me").status_code == 401


# Tokens.


def whoami(repo: Repository, value: bytes) -> Answer:
    return request(repo.app, "GET", "/v1/whoami", [(b"authorization", value)])


def test_a_token_tells_who_holds_it(repo: Repository) -> None:
    token = repo.token("ann", "evaluator", days=1)
    answer = whoami(repo, f"bearer   {token} ".encode())
    assert answer.json()["name"] == "ann"
    assert answer.json()["role"] == "evaluator"
    assert answer.json()["expires_at"] == "2026-06-02T12:00:00Z"


def test_an_expired_token_says_so(repo: Repository) -> None:
    token = repo.token(hours=1)
    assert whoami(repo, f"Bearer {token}".encode()).status == 200
    repo.clock.advance(hours=1)
    answer = whoami(repo, f"Bearer {token}".encode())
    assert (answer.status, answer.json()["code"]) == (401, "token_expired")
    assert repo.client(token).get("/v1/models").status_code == 401


def test_a_revoked_token_is_worth_nothing_at_once(repo: Repository) -> None:
    first, second = repo.token("ann"), repo.token("ann", "reader")
    other = repo.token("bob")
    assert revoke_token(repo.ctx, first.split("_")[1]) == 1
    assert whoami(repo, f"Bearer {first}".encode()).status == 401
    assert whoami(repo, f"Bearer {second}".encode()).status == 200
    assert revoke_token(repo.ctx, "ann") == 1
    assert revoke_token(repo.ctx, "ann") == 0
    assert whoami(repo, f"Bearer {second}".encode()).status == 401
    assert whoami(repo, f"Bearer {other}".encode()).status == 200
    with pytest.raises(TokenNotFound):
        revoke_token(repo.ctx, "nobody")


def garbage(token: str) -> list[bytes]:
    """Return what is no valid header, made from a token that is."""
    name, key, secret = token.split("_", 2)
    good = token.encode()
    return [
        b"", b" ", b"Bearer", b"Bearer ", b"Basic " + good, good, b"Bearer " + good[:-1],
        b"Bearer " + good + b"x", b"Bearer " + good.upper(), b"Bearer " + good + b" " + good,
        f"Bearer {name}_{key}_{'A' * 43}".encode(), f"Bearer {name}_{'0' * 16}_{secret}".encode(),
        b"Bearer caf\xc3\xa9", b"Bearer \xff\xfe", "Bearer cf_٠_x".encode(),
        b"Bearer " + b"x" * 100_000,
        b"Bearer cf_" + key.encode() + b"_" + b"\xe9" * 43, b"Bearer ' OR 1=1 --", b"Bearer \x00",
        b"\xb2 \xb2", b"Bearer null", b"Bearer cf__",
    ]  # fmt: skip


def test_garbage_for_a_token_is_401_on_every_kind_of_route(repo: Repository) -> None:
    for number, value in enumerate(garbage(repo.token())):
        # From one address so many would soon have to wait.
        address = f"192.0.2.{number}"
        for method, path in [("GET", "/v1/whoami"), ("GET", "/v1/models"), ("GET", "/healthz"),
                             ("POST", f"/v1/models/{MODEL}/contributions")]:  # fmt: skip
            headers = [(b"authorization", value)]
            answer = request(repo.app, method, path, headers, address=address)
            assert answer.status == 401, (value, answer.body)
            assert answer.json()["code"] == "unauthenticated"


def test_a_token_is_kept_as_its_digest_alone(repo: Repository) -> None:
    token = repo.token()
    secret = token.split("_", 2)[2].encode()
    repo.client(token).get("/v1/whoami")
    for path in repo.folder.rglob("*"):
        if path.is_file():
            assert secret not in path.read_bytes()


@pytest.mark.parametrize("name", ["", " ", "a b", "../x", "<b>", "x" * 101, "ä", "a\n", ".a", "a."])
def test_names_that_could_be_mistaken_for_something_else_are_refused(
    name: str, repo: Repository
) -> None:
    with pytest.raises(InvalidRequest):
        create_token(repo.ctx, name, Role.READER)


@pytest.mark.parametrize(
    "cookie",
    [b"coldfusion_session=x", b"coldfusion_session=a.b.c", b"coldfusion_session=..",
     b"coldfusion_session=a.\xb2.c", b"coldfusion_session=a." + b"9" * 5000 + b".c",
     b"\xff\xfe=1; ;;;", b'coldfusion_session="', b"coldfusion_session=" + b"a" * 10_000],
)  # fmt: skip
def test_a_forged_session_reads_as_a_visitor(cookie: bytes, repo: Repository) -> None:
    assert request(repo.app, "GET", "/v1/models", [(b"cookie", cookie)]).status == 200
    assert request(repo.app, "GET", "/v1/whoami", [(b"cookie", cookie)]).status == 401


def test_no_cookie_keeps_the_server_busy(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header of backslashes cost Python's own reader a minute, and FastAPI asks it each time."""
    unquoted: list[str] = []

    def unquote(text: str) -> str:
        unquoted.append(text)
        return text

    monkeypatch.setattr(http.cookies, "_unquote", unquote)
    for name in (b"coldfusion_session", b"other"):
        cookie = name + b'="' + b'\\"' * 20_000 + b'"'
        assert request(repo.app, "GET", "/v1/models", [(b"cookie", cookie)]).status == 200
    assert not [text for text in unquoted if "\\" in text]


def test_a_session_reads_but_never_writes_and_ends_with_its_token(repo: Repository) -> None:
    from coldfusion_server.api.session import make_session

    repo.model(PRIVATE, public=False)
    token = repo.token("max", "maintainer")
    cookie = f"coldfusion_session={make_session(repo.ctx, token.split('_')[1])}".encode()
    path = f"/v1/models/{PRIVATE}"
    assert request(repo.app, "GET", path, [(b"cookie", cookie)]).status == 200
    close = request(repo.app, "POST", f"{path}/rounds/1/close", [(b"cookie", cookie)])
    assert close.status == 401
    revoke_token(repo.ctx, "max")
    assert request(repo.app, "GET", path, [(b"cookie", cookie)]).status == 404


# Bodies.


def test_an_anonymous_body_is_not_read(repo: Repository) -> None:
    for length in (b"52428800", None):
        headers = [] if length is None else [(b"content-length", length)]
        answer = request(
            repo.app,
            "POST",
            f"/v1/models/{MODEL}/contributions",
            [*headers, (b"content-type", b"application/json")],
            [bytes(2**20)] * 50,
        )
        assert (answer.status, answer.read) == (401, 0)


def test_a_body_over_the_limit_is_cut_off_before_it_is_read(repo: Repository) -> None:
    token = (b"authorization", f"Bearer {repo.token()}".encode())
    path = f"/v1/models/{MODEL}/contributions"
    said = request(repo.app, "POST", path, [token, (b"content-length", b"52428800")], [bytes(9)])
    assert (said.status, said.read) == (413, 0)
    unsaid = request(repo.app, "POST", path, [token], [bytes(2**19)] * 100)
    assert unsaid.status == 413
    assert unsaid.read <= 2**20 + 2**19
    assert unsaid.json()["code"] == "too_large"
    lied = request(repo.app, "POST", path, [token, (b"content-length", b"5")], [bytes(2**19)] * 9)
    assert lied.status == 413


@pytest.mark.parametrize("path", ["/login", "/logout"])
def test_forms_without_a_token_are_small(path: str, repo: Repository) -> None:
    answer = request(repo.app, "POST", path, [], [bytes(2**20)] * 50)
    assert answer.status == 413
    assert answer.read <= 2**20


@pytest.mark.parametrize("path", ["/loginx", "/login/x", "/v1/uploadsx"])
def test_what_only_looks_like_a_form_needs_a_token(path: str, repo: Repository) -> None:
    answer = request(repo.app, "POST", path, [], [bytes(2**20)] * 50)
    assert (answer.status, answer.read) == (401, 0)
