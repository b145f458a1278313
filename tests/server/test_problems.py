"""
Errors on the wire: each is a problem document with a code, a status and the request's id.

What is refused before a database is asked is tried on one of them.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from coldfusion_server.api import errors
from coldfusion_server.services import models
from coldfusion_shared.errors import ColdFusionError, all_errors
from coldfusion_shared.schemas.common import Problem
from tests.server.asgi import request
from tests.server.backends import both_databases, only_sqlite
from tests.server.repository import MODEL, Repository, body_file, declaration

DECLARE = f"/v1/models/{MODEL}/contributions"
EVALUATE = f"/v1/models/{MODEL}/bases/v0/evaluations"


def is_problem(answer: Any, status: int, code: str | None = None) -> Problem:
    """Check that `answer` is a problem document, as RFC 9457 has it, and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate(answer.json())
    assert problem.status == status
    assert problem.request_id == answer.headers["x-request-id"]
    assert problem.detail and problem.title and problem.type
    if code is not None:
        assert problem.code == code
    return problem


def test_every_error_has_a_status_and_every_status_an_error() -> None:
    ours = {e.code for e in all_errors() if e.__module__.startswith("coldfusion")}
    assert set(errors.STATUS) == ours
    assert all(400 <= status < 600 for status in errors.STATUS.values())
    assert set(errors.RETRY_AFTER) <= ours


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.code)
def test_every_error_becomes_a_problem_document(error: type[ColdFusionError]) -> None:
    made = error("wrong", hint="mend it", tensors=["t"])
    problem = errors.problem(made, "/v1/x", "id")
    assert (problem.code, problem.detail, problem.hint) == (error.code, "wrong", "mend it")
    assert problem.tensors == ["t"]
    assert ("Retry-After" in errors.headers(made)) == (problem.retry_after is not None)


NOWHERE = [
    ("GET", "/nowhere", 404),
    ("GET", "/v1/nowhere", 404),
    ("GET", "/v1/models/demo", 404),
    ("GET", "/v1/models/demo/nothing", 404),
    ("GET", "/v1/models/demo/a%00b", 404),
    ("GET", "/v1/models/demo/%F0%9F%92%A9", 404),
    ("GET", f"/v1/models/{'x' * 200}/y", 422),
    ("GET", f"/v1/models/{MODEL}/bases/v9", 404),
    ("GET", f"/v1/models/{MODEL}/bases/0", 404),
    ("GET", f"/v1/models/{MODEL}/bases/v%C2%B2", 404),
    ("GET", f"/v1/models/{MODEL}/bases/v{'9' * 5000}", 404),
    ("GET", f"/v1/models/{MODEL}/bases/v-1", 404),
    ("GET", f"/v1/models/{MODEL}/bases/%00", 404),
    ("GET", f"/v1/models/{MODEL}/bases/v0/files/nothing", 404),
    ("GET", f"/v1/models/{MODEL}/bases/v0/files/", 404),
    ("GET", f"/v1/models/{MODEL}/bases/v0/files/..%2f..%2fsecret.key", 404),
    ("GET", f"/v1/models/{MODEL}/bases/v0/files/%2fetc%2fpasswd", 404),
    ("GET", f"/v1/models/{MODEL}/bases/v0/files/config.json%00", 404),
    ("GET", f"/v1/models/{MODEL}/rounds/9", 404),
    ("GET", f"/v1/models/{MODEL}/rounds/-1", 404),
    ("GET", f"/v1/models/{MODEL}/rounds/{'9' * 5000}", 404),
    ("GET", f"/v1/models/{MODEL}/rounds/%C2%B2", 404),
    ("GET", f"{DECLARE}?round=nine", 404),
    ("GET", f"{DECLARE}?state=lost", 422),
    ("GET", "/v1/contributions/nothing", 404),
    ("GET", "/v1/contributions/%00", 404),
    ("PUT", "/v1/models", 401),
    ("DELETE", f"/v1/models/{MODEL}", 401),
    ("PATCH", "/v1", 401),
]


@pytest.mark.parametrize(("method", "path", "status"), NOWHERE)
def test_what_is_not_there_is_a_problem_document(
    method: str, path: str, status: int, repo: Repository
) -> None:
    is_problem(repo.client().request(method, path), status)


@only_sqlite
@pytest.mark.parametrize("path", ["/v1/{}", "/v1/models/a/{}", "/v1/models/{}/b/rounds/1/close"])
def test_what_was_asked_for_is_said_again_in_short(path: str, repo: Repository) -> None:
    for method in ("GET", "POST"):
        answer = request(repo.app, method, path.format("a" * 50_000))
        assert answer.status in (401, 404, 405, 422)
        assert len(answer.body) < 5000 and len(answer.json()["instance"]) == 500


def test_a_method_that_is_not_allowed_says_which_are(repo: Repository) -> None:
    answer = repo.client(repo.token()).delete("/v1/models")
    is_problem(answer, 405, "invalid_request")
    assert answer.headers["allow"] == "GET"


def changed(**changes: Any) -> Any:
    return {**declaration(body_file()), **changes}


@only_sqlite
@pytest.mark.parametrize(
    "body",
    [
        None, [], "text", 1, True, {}, {"base": "v0"}, changed(base=0), changed(base=None),
        changed(base="latest"), changed(files=[]), changed(files={}), changed(files=None),
        changed(files=declaration(body_file())["files"] * 2), changed(encoding="ZIP!"),
        changed(extra=1), changed(work=[]), changed(work={"settings": {"a": {"b": 1}}}),
        changed(work={"examples": 1e400}), changed(work={"task": "\x00" * 501}),
        changed(work={"languages": "en"}), changed(files=[{"path": 1}]),
    ],
)  # fmt: skip
def test_a_declaration_of_wrong_types_is_422(body: Any, repo: Repository) -> None:
    import json

    headers = {"Idempotency-Key": "12345678", "Content-Type": "application/json"}
    content = json.dumps(body)
    answer = repo.client(repo.token()).post(DECLARE, content=content, headers=headers)
    is_problem(answer, 422, "invalid_request")


@only_sqlite
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"nonsense", b"[" * 100_000, b'{"base":' * 50_000, b'{"a":1e999999}',
     b'{"base":"\\ud800","files":[]}', b'{"base": ' + b"9" * 5000 + b"}", b"NaN", b"\x00" * 10],
    ids=range(11),
)  # fmt: skip
def test_a_body_that_is_no_json_is_the_senders_fault(content: bytes, repo: Repository) -> None:
    headers = {"Idempotency-Key": "12345678", "Content-Type": "application/json"}
    answer = repo.client(repo.token()).post(DECLARE, content=content, headers=headers)
    is_problem(answer, answer.status_code, "invalid_request")
    assert answer.status_code in (400, 422)


@only_sqlite
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "a/b; ="])
def test_a_body_of_another_kind_is_refused(kind: str, repo: Repository) -> None:
    headers = {"Idempotency-Key": "12345678", "Content-Type": kind}
    answer = repo.client(repo.token()).post(DECLARE, content=b"a=b", headers=headers)
    is_problem(answer, answer.status_code, "invalid_request")


@only_sqlite
@pytest.mark.parametrize(
    "report",
    [{"suite": "", "protocol": "frozen", "scores": {"a": 1}}, {"suite": "s", "scores": {"a": 1}},
     {"suite": "s", "protocol": "psychic", "scores": {"a": 1}},
     {"suite": "s", "protocol": "frozen", "scores": {}},
     {"suite": "s", "protocol": "frozen", "scores": {"a": None}},
     {"suite": "s", "protocol": "frozen", "scores": {"a": 1.7e308, "b": 1.7e308}}],
)  # fmt: skip
def test_scores_that_make_no_sense_are_422(report: Any, repo: Repository) -> None:
    answer = repo.client(repo.token("eva", "evaluator")).post(EVALUATE, json=report)
    is_problem(answer, 422, "invalid_request")


@both_databases
def test_a_text_that_a_database_cannot_keep_is_the_senders_fault(repo: Repository) -> None:
    eva = repo.client(repo.token("eva", "evaluator"))
    report = {"suite": "s", "protocol": "frozen", "scores": {"a": 1.0}}
    for change in ({"suite": "a\0b"}, {"metric": "\0"}):
        is_problem(eva.post(EVALUATE, json={**report, **change}), 422, "invalid_request")
    for path in ("/v1/events?model=%00", f"{DECLARE}?contributor=%00", f"{DECLARE}?round=%00"):
        assert repo.client().get(path).status_code in (200, 404, 422), path


@both_databases
def test_what_is_said_of_the_work_comes_back_as_it_was(repo: Repository) -> None:
    ann = repo.contributor()
    body = {**declaration(body_file()), "work": {"dataset": "\x01\x7fä", "task": "💩"}}
    headers = {"Idempotency-Key": "12345678"}
    answer = ann.client.post(DECLARE, json=body, headers=headers)
    assert answer.status_code == 201
    work = ann.receipt(answer.json()["contribution"]["id"])["work"]
    assert (work["dataset"], work["task"]) == ("\x01\x7fä", "💩")


def test_scores_are_kept_with_their_mean(repo: Repository) -> None:
    eva = repo.client(repo.token("eva", "evaluator"))
    report = {"suite": "s", "protocol": "frozen", "scores": {"a": 10.0, "b": 20.0}}
    posted = eva.post(EVALUATE, json=report)
    assert posted.status_code == 201
    assert posted.json()["average"] == 15.0
    assert repo.get(EVALUATE) == [posted.json()]
    assert posted.json()["evaluator"] == "eva"


LISTS = ["/v1/models", f"/v1/models/{MODEL}/bases", f"/v1/models/{MODEL}/rounds", DECLARE]


@only_sqlite
@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "²", "1 ", "9" * 30, "9" * 5000, "%00", ""])
def test_a_cursor_that_we_did_not_give_out_is_422(path: str, cursor: str, repo: Repository) -> None:
    is_problem(repo.client().get(path, params={"cursor": cursor}), 422, "invalid_request")


@both_databases
@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("cursor", ["0", "1", "999999999999999999", "000000000000000001"])
def test_a_cursor_beyond_the_ends_is_an_honest_page(
    path: str, cursor: str, repo: Repository
) -> None:
    assert repo.client().get(path, params={"cursor": cursor}).status_code == 200


@only_sqlite
@pytest.mark.parametrize("limit", ["0", "-1", "201", "x", "9" * 5000, "1e3"])
def test_a_limit_out_of_range_is_422(limit: str, repo: Repository) -> None:
    is_problem(repo.client().get("/v1/models", params={"limit": limit}), 422)


@both_databases
def test_pages_have_everything_once_newest_first(repo: Repository) -> None:
    ids = [repo.contributor(f"c{n}").sent(body_file(n)) for n in range(5)]
    seen, cursor, pages = [], None, 0
    while True:
        page = repo.get(f"{DECLARE}?limit=2" + (f"&cursor={cursor}" if cursor else ""))
        seen += [item["id"] for item in page["items"]]
        pages += 1
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert (seen, pages) == (ids[::-1], 3)


@both_databases
def test_contributions_are_found_by_round_state_and_contributor(repo: Repository) -> None:
    ann, bob = repo.contributor("ann"), repo.contributor("bob")
    first = ann.contribute(body_file(1))
    repo.work()
    second = bob.sent(body_file(2))

    def found(query: str) -> list[str]:
        return [item["id"] for item in repo.get(f"{DECLARE}?{query}")["items"]]

    assert found("state=accepted") == [first]
    assert found("state=declared&round=open") == [second]
    assert found("contributor=ann&round=1") == [first]
    assert found("contributor=nobody") == []


@only_sqlite
@pytest.mark.parametrize("host", [b"[", b"]", b"", b"a b", b"a/b?c#d", b"\xff", b"x" * 5000,
                                  b"example.org:99999999", b"[::1"])  # fmt: skip
def test_a_weird_host_is_never_a_fault_of_ours(host: bytes, repo: Repository) -> None:
    token = (b"authorization", f"Bearer {repo.token()}".encode())
    contribution = repo.contributor().sent(body_file())
    for path in ("/v1/models", "/v1/models/a/b", f"/v1/contributions/{contribution}/upload",
                 "/nowhere", "/v1/models?limit=x"):  # fmt: skip
        path, _, query = path.partition("?")
        answer = request(repo.app, "GET", path, [token, (b"host", host)], query=query)
        assert answer.status in (200, 404, 422, 400), (path, answer.body)
    answer = request(repo.app, "PUT", "/v1/uploads/a.0/1", [(b"host", host)], [b"x"])
    assert answer.status == 403


@only_sqlite
@pytest.mark.parametrize("given", ["abc-123", "x" * 64])
def test_a_harmless_request_id_is_kept(given: str, repo: Repository) -> None:
    answer = repo.client().get("/nowhere", headers={"X-Request-Id": given})
    assert is_problem(answer, 404).request_id == given


@only_sqlite
@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a;b", "\x1b[31m", "<b>"])
def test_another_request_id_is_replaced(given: str, repo: Repository) -> None:
    answer = repo.client().get("/nowhere", headers={"X-Request-Id": given})
    assert re.fullmatch(r"[0-9a-f]{16}", is_problem(answer, 404).request_id or "")


@only_sqlite
def test_a_fault_of_ours_is_a_problem_document_without_its_insides(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("secret inside")

    monkeypatch.setattr(models, "list_models", broken)
    answer = repo.client().get("/v1/models")
    problem = is_problem(answer, 500, "internal")
    assert "secret" not in answer.text
    assert problem.hint is not None and "request id" in problem.hint


@only_sqlite
def test_every_answer_says_not_to_guess_and_not_to_frame(repo: Repository) -> None:
    client: TestClient = repo.client()
    for path in ("/v1", "/nowhere", f"/v1/models/{MODEL}/bases/v0/files/config.json"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]


@only_sqlite
def test_the_description_of_the_api_is_complete(repo: Repository) -> None:
    document = repo.get("/v1/openapi.json")
    ids = [
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
    ]
    assert len(set(ids)) == len(ids) > 15
