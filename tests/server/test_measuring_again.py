"""A base is measured once more when a maintainer asks for it: audited, told, and only once."""

from __future__ import annotations

from typing import Any

import pytest

from coldfusion_server.db.tables import EvaluationTryRow
from coldfusion_server.evaluator import evaluate_once, prepare, try_again
from coldfusion_server.services.evaluation_tries import MAX_TRIES
from coldfusion_server.services.measuring import Task
from coldfusion_shared.errors import EvaluationFailed
from coldfusion_shared.schemas.evaluations import EvaluationReport
from tests.server.backends import both_databases
from tests.server.measured import report, suite
from tests.server.repository import MODEL, Repository

PATH = f"/v1/models/{MODEL}/bases/v0/evaluate"


class Fake:
    """Measures a level that can be set, or fails."""

    def __init__(self) -> None:
        self.level, self.fails = 80.0, False

    def __call__(self, folder: Any, moved: Any, base: Any = None) -> EvaluationReport:
        if self.fails:
            raise EvaluationFailed("The data are away.")
        return report(suite(), self.level)


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def task(repo: Repository, fake: Fake) -> Task:
    return prepare(repo.ctx, suite(), "frozen", 3, lambda kept: fake)


def ask(repo: Repository, role: str = "maintainer", **body: Any) -> Any:
    return repo.client(repo.token("max", role)).post(PATH, json=body or None)


def audited(repo: Repository) -> list[Any]:
    found = repo.get("/v1/audit?action=evaluation.requested", repo.token("root", "admin"))
    entries: list[Any] = found["items"]
    return entries


def averages(repo: Repository) -> list[float]:
    return [one["average"] for one in repo.get(f"/v1/models/{MODEL}/bases/v0/evaluations")]


@both_databases
def test_a_measured_base_is_measured_once_more(repo: Repository, task: Task, fake: Fake) -> None:
    assert evaluate_once(repo.ctx, task, "a") and not evaluate_once(repo.ctx, task, "a")
    fake.level = 70.0
    done = ask(repo, reason="the data were mended").json()
    assert done.get("changed"), done
    assert "v0 waits to be measured once more" in done["sentence"]
    again = ask(repo).json()
    assert not again["changed"] and "already" in again["sentence"]
    (entry,) = audited(repo)
    assert (entry["by"], entry["subject"], entry["reason"]) == (
        "max", "v0", "the data were mended",
    )  # fmt: skip
    events = [e["data"] for e in repo.get("/v1/events") if e["type"] == "evaluation.requested"]
    assert events == [{"version": "v0", "by": "max"}]
    assert evaluate_once(repo.ctx, task, "a") and not evaluate_once(repo.ctx, task, "a")
    assert averages(repo) == [80.0, 70.0]
    with repo.ctx.database.read() as session:
        assert session.query(EvaluationTryRow).count() == 0


def test_scores_that_come_out_the_same_are_posted_once(repo: Repository, task: Task) -> None:
    assert evaluate_once(repo.ctx, task, "a")
    assert ask(repo).json()["changed"]
    assert evaluate_once(repo.ctx, task, "a") and not evaluate_once(repo.ctx, task, "a")
    assert averages(repo) == [80.0]


def test_what_was_given_up_is_tried_again(repo: Repository, task: Task, fake: Fake) -> None:
    fake.fails = True
    for _ in range(MAX_TRIES):
        assert evaluate_once(repo.ctx, task, "a")
        repo.clock.advance(hours=1)
    assert not evaluate_once(repo.ctx, task, "a")
    fake.fails = False
    assert ask(repo).json()["changed"]
    assert evaluate_once(repo.ctx, task, "a")
    assert averages(repo) == [80.0]


def test_of_what_nobody_has_begun_with_it_says_what_is_missing(repo: Repository) -> None:
    done = ask(repo).json()
    assert not done["changed"] and "--evaluate FILE" in done["sentence"]
    assert audited(repo) == []


@pytest.mark.parametrize("role", ["reader", "contributor", "evaluator"])
def test_nobody_but_a_maintainer_asks(repo: Repository, role: str) -> None:
    assert ask(repo, role).status_code == 403


def test_what_is_wanted_once_more_outlives_a_restart_and_is_done_once(
    repo: Repository, task: Task, fake: Fake
) -> None:
    assert evaluate_once(repo.ctx, task, "a")
    assert ask(repo).json()["changed"]
    try_again(repo.ctx, task)
    fake.level = 70.0
    assert evaluate_once(repo.ctx, task, "b") and not evaluate_once(repo.ctx, task, "b")
    assert averages(repo) == [80.0, 70.0]


def test_one_more_that_fails_is_given_up_and_can_be_asked_for_again(
    repo: Repository, task: Task, fake: Fake
) -> None:
    assert evaluate_once(repo.ctx, task, "a")
    assert ask(repo).json()["changed"]
    fake.fails = True
    for _ in range(MAX_TRIES):
        assert evaluate_once(repo.ctx, task, "a")
        repo.clock.advance(hours=1)
    assert not evaluate_once(repo.ctx, task, "a")
    fake.fails, fake.level = False, 60.0
    assert ask(repo).json()["changed"]
    assert evaluate_once(repo.ctx, task, "a") and not evaluate_once(repo.ctx, task, "a")
    assert averages(repo) == [80.0, 60.0]
