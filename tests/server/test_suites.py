"""Suites as a resource: what a name stands for never changes."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from coldfusion_server.services import suites
from coldfusion_shared.schemas.evaluations import RegisteredSuite, Suite
from tests.server.backends import both_databases, only_sqlite
from tests.server.measured import dataset, report, suite
from tests.server.repository import MODEL, Repository

EVALUATE = f"/v1/models/{MODEL}/bases/v0/evaluations"


def put(repo: Repository, given: Suite, name: str | None = None) -> Any:
    client = repo.client(repo.token("eva", "evaluator"))
    return client.put(f"/v1/suites/{name or given.name}", json=given.model_dump(mode="json"))


def listed(repo: Repository, token: str | None) -> Any:
    page = repo.get("/v1/suites", token)
    assert page["next_cursor"] is None
    return page["items"]


def events(repo: Repository, token: str | None) -> list[Any]:
    return [e for e in repo.get("/v1/events", token) if e["type"] == "suite.registered"]


def test_a_suite_is_registered_once_and_comes_back_as_it_was(repo: Repository) -> None:
    given = suite(training={"epochs": 3, "lr": 2e-5, "schedule": None})
    answer = put(repo, given)
    assert answer.status_code == 201, answer.text
    found = RegisteredSuite.model_validate(answer.json())
    assert (found.suite, found.digest, found.registered_by) == (given, given.digest(), "eva")
    reader = repo.token("r", "reader")
    assert listed(repo, reader) == [answer.json()]
    assert repo.get(f"/v1/suites/{given.name}", reader) == answer.json()


def test_registering_the_same_again_changes_nothing(repo: Repository) -> None:
    first, again = put(repo, suite()), put(repo, suite())
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    token = repo.token("r", "reader")
    assert [e["data"] for e in events(repo, token)] == [
        {"suite": "text-2", "digest": suite().digest()}
    ]


CHANGED = {
    "digest": (suite(datasets=["reviews", dataset("questions", digest="1" * 64)]), "questions"),
    "metric": (suite(datasets=[dataset("reviews", metric="macro F1"), "questions"]), "metric"),
    "one more": (suite(datasets=["reviews", "questions", "topics"]), "topics"),
    "one less": (suite(datasets=["reviews"]), "questions"),
    "order": (suite(datasets=["questions", "reviews"]), "order"),
    "settings": (suite(max_length=64), "settings"),
    "training": (suite(training={"epochs": 2}), "settings"),
}


@pytest.mark.parametrize("case", list(CHANGED))
def test_a_name_stands_for_one_content_for_ever(case: str, repo: Repository) -> None:
    other, why = CHANGED[case]
    assert put(repo, suite()).status_code == 201
    answer = put(repo, other)
    assert (answer.status_code, answer.json()["code"]) == (409, "suite_changed")
    assert why in answer.json()["detail"] and answer.json()["hint"]
    assert put(repo, other.model_copy(update={"name": "text-3"})).status_code == 201
    token = repo.token("r", "reader")
    assert repo.get("/v1/suites/text-2", token)["digest"] == suite().digest()


def test_two_names_may_stand_for_the_same(repo: Repository) -> None:
    assert put(repo, suite("one")).status_code == put(repo, suite("two")).status_code == 201
    found = listed(repo, repo.token("r", "reader"))
    assert [item["name"] for item in found] == ["two", "one"]
    assert len({item["digest"] for item in found}) == 1


@both_databases
@pytest.mark.parametrize("count", [8])
def test_of_many_who_register_at_once_one_does(count: int, repo: Repository) -> None:
    who = repo.principal("eva", "evaluator")
    ready, news = threading.Barrier(count), []

    def register() -> None:
        ready.wait()
        news.append(suites.register(repo.ctx, "text-2", suite(), who)[1])

    threads = [threading.Thread(target=register) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(news) == [False] * (count - 1) + [True]


def changed(**changes: Any) -> Any:
    return {**suite().model_dump(mode="json"), **changes}


@only_sqlite
@pytest.mark.parametrize(
    "body",
    [
        None, [], {}, changed(name="other"), changed(name="a b"), changed(datasets=[]),
        changed(datasets=[dataset("a").model_dump()] * 2), changed(max_length=0),
        changed(extra=1), changed(training={"lr": {}}), changed(training={"\0": 1}),
        changed(datasets=[{**dataset("a").model_dump(), "digest": "x"}]),
        changed(datasets=[{**dataset("a").model_dump(), "name": "\0"}]),
        changed(datasets=[{**dataset("a").model_dump(), "test": -1}]),
    ],
)  # fmt: skip
def test_what_is_no_suite_is_refused(body: Any, repo: Repository) -> None:
    client = repo.client(repo.token("eva", "evaluator"))
    answer = client.put("/v1/suites/text-2", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), answer.text
    assert listed(repo, repo.token("r", "reader")) == []


@only_sqlite
@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "9" * 5000])
def test_a_setting_that_is_no_number_is_refused(number: str, repo: Repository) -> None:
    text = suite(training={"lr": 0.125}).model_dump_json().replace("0.125", number)
    client = repo.client(repo.token("eva", "evaluator"))
    headers = {"Content-Type": "application/json"}
    answer = client.put("/v1/suites/text-2", content=text, headers=headers)
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["code"] == "invalid_request"


@both_databases
def test_a_large_number_stays_what_it_is(repo: Repository) -> None:
    given = suite(seed=2**80, training={"lr": 0.1 + 0.2, "steps": 2**70})
    assert Suite.model_validate(put(repo, given).json()["suite"]) == given


@pytest.mark.parametrize("name", ["nothing", "%00", "a%20b", "x" * 500])
def test_a_suite_that_is_not_there_is_not_found(name: str, repo: Repository) -> None:
    answer = repo.client(repo.token("r", "reader")).get(f"/v1/suites/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "suite_not_found")


def test_visitors_see_the_suites_of_public_bases_alone(repo: Repository) -> None:
    repo.model("demo/private", public=False)
    client = repo.client(repo.token("eva", "evaluator"))
    for name in ("open", "secret", "unused", "hand-made"):
        assert put(repo, suite(name)).status_code == 201
    hidden = report(suite("secret")).model_dump(mode="json")
    path = "/v1/models/demo/private/bases/v0/evaluations"
    assert client.post(path, json=hidden).status_code == 201
    for one in (report(suite("open")), report()):
        assert client.post(EVALUATE, json=one.model_dump(mode="json")).status_code == 201
    assert [item["name"] for item in listed(repo, None)] == ["open"]
    assert repo.get("/v1/suites/open")["name"] == "open"
    assert repo.client().get("/v1/suites/secret").status_code == 404
    reader = repo.token("r", "reader")
    assert len(listed(repo, reader)) == len(events(repo, reader)) == 4
    assert events(repo, None) == []


@both_databases
def test_suites_come_in_pages_newest_first(repo: Repository) -> None:
    names = [f"suite-{number}" for number in range(5)]
    for name in names:
        assert put(repo, suite(name)).status_code == 201
    reader, found, cursor = repo.token("r", "reader"), [], ""
    for size in (2, 2, 1):
        page = repo.get(f"/v1/suites?limit=2{cursor}", reader)
        assert len(page["items"]) == size
        found += [item["name"] for item in page["items"]]
        cursor = f"&cursor={page['next_cursor']}"
    assert found == names[::-1] and page["next_cursor"] is None
    assert repo.client(reader).get("/v1/suites?cursor=x").status_code == 422
