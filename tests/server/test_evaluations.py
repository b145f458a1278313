"""Evaluations: what is kept of a report, and whether evaluators agree."""

from __future__ import annotations

import math
import random
import threading
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import null, update

from coldfusion_server.db.tables import EvaluationRow
from coldfusion_server.services import evaluations
from coldfusion_server.services.agreement import agreements, departures
from coldfusion_shared.schemas.evaluations import Evaluation, EvaluationReport, Suite
from tests.server.backends import both_databases
from tests.server.measured import dataset, report, suite
from tests.server.repository import MODEL, Json, Repository

BASE = f"/v1/models/{MODEL}/bases/v0"
EVALUATE = f"{BASE}/evaluations"


def register(repo: Repository, given: Suite) -> None:
    client = repo.client(repo.token("eva", "evaluator"))
    answer = client.put(f"/v1/suites/{given.name}", json=given.model_dump(mode="json"))
    assert answer.status_code == 201, answer.text


def post(repo: Repository, given: EvaluationReport, name: str = "eva") -> Any:
    client = repo.client(repo.token(name, "evaluator"))
    return client.post(EVALUATE, json=given.model_dump(mode="json"))


@both_databases
def test_all_of_a_report_is_kept(repo: Repository) -> None:
    register(repo, suite())
    given = report(suite(), standard_errors={"reviews": 3.0, "questions": 4.0})
    answer = post(repo, given)
    assert answer.status_code == 201, answer.text
    kept: Json = answer.json()
    assert repo.get(EVALUATE) == [kept]
    told = given.model_dump(mode="json")
    assert {name: kept[name] for name in told} == told
    assert (kept["average"], kept["standard_error"]) == (80.0, 2.5)
    assert (kept["evaluator"], kept["version"]) == ("eva", "v0")
    (event,) = [e for e in repo.get("/v1/events") if e["type"] == "evaluation.posted"]
    assert event["data"] == {
        "version": "v0",
        "suite": "text-2",
        "protocol": "frozen",
        "average": 80.0,
        "standard_error": 2.5,
        "evaluator": "eva",
    }


def test_scores_made_by_hand_are_not_pinned(repo: Repository) -> None:
    register(repo, suite())
    answer = post(repo, EvaluationReport(suite="text-2", protocol="frozen", scores={"a": 1.0}))
    assert answer.status_code == 201
    assert (answer.json()["suite_digest"], answer.json()["standard_error"]) == (None, None)


def test_what_was_kept_before_there_were_suites_is_shown(repo: Repository) -> None:
    assert post(repo, report()).status_code == 201
    new = ("suite_digest", "standard_errors", "by_seed", "seeds", "software", "report_sha256")
    with repo.ctx.database.write() as session:
        session.execute(update(EvaluationRow).values(dict.fromkeys(new, null())))
    (kept,) = repo.get(EVALUATE)
    assert (kept["average"], kept["standard_error"], kept["by_seed"]) == (80.0, None, {})
    assert post(repo, report()).status_code == 201


def test_an_average_has_an_error_only_where_all_have(repo: Repository) -> None:
    answer = post(repo, report(standard_errors={"reviews": 1.0}))
    assert answer.json()["standard_error"] is None


def test_a_pinned_report_is_of_the_registered_suite(repo: Repository) -> None:
    answer = post(repo, report(suite()))
    assert (answer.status_code, answer.json()["code"]) == (404, "suite_not_found")
    register(repo, suite())
    answer = post(repo, report(suite(max_length=64)))
    assert (answer.status_code, answer.json()["code"]) == (409, "suite_changed")
    for names in (["reviews"], ["reviews", "questions", "topics"], ["reviews", "topics"]):
        other = report(suite(datasets=names), suite_digest=suite().digest())
        answer = post(repo, other)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert names == ["reviews"] or "topics" in answer.json()["detail"]
    assert repo.get(EVALUATE) == []


MIXED = suite(datasets=["reviews", dataset("questions", metric="macro F1")])
UNSOUND: dict[str, tuple[Suite, Json, str]] = {
    "another metric": (suite(), {"metric": "macro F1"}, "is scored by 'accuracy'"),
    "one of its metrics": (MIXED, {"metric": "accuracy"}, "is scored by 'accuracy, macro F1'"),
    "no seeds": (suite(), {"seeds": [], "by_seed": {}}, "each seed scored on 'reviews'"),
    "seeds without scores": (
        suite(), {"by_seed": {"reviews": [80.0] * 3}}, "each seed scored on 'questions'"
    ),
    "not their mean": (
        suite(), {"scores": {"reviews": 80.0, "questions": 80.02}}, "80.02 on 'questions'"
    ),
    "no errors": (suite(), {"standard_errors": {}}, "no standard error of 'reviews'"),
    "not all errors": (
        suite(), {"standard_errors": {"reviews": 1.0}}, "no standard error of 'questions'"
    ),
    "a seed twice": (suite(), {"seeds": [0, 1, 1]}, "a seed is given twice"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(UNSOUND))
def test_a_pinned_report_is_sound(case: str, repo: Repository) -> None:
    of, changes, why = UNSOUND[case]
    register(repo, of)
    answer = post(repo, report(of, metric=of.metric).model_copy(update=changes))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert why in answer.json()["detail"]
    assert repo.get(EVALUATE) == []


ONE_SEED: Json = {"seeds": [4], "by_seed": {"reviews": [80.0], "questions": [80.0]}}
SOUND: dict[str, tuple[Suite, Json]] = {
    "all of it": (suite(), {}),
    "several metrics": (MIXED, {}),
    "rounded": (suite(), {"scores": {"reviews": 80.004, "questions": 79.996}}),
    "one seed, which has no errors": (suite(), {"standard_errors": {}, **ONE_SEED}),
    "a task whose examples are not scored one by one": (
        suite(datasets=["reviews", dataset("questions", task="seq2seq", metric="ROUGE-L")]),
        {"standard_errors": {"reviews": 1.0}},
    ),
    "a metric that nobody knows": (
        suite(datasets=["reviews", dataset("questions", metric="applause")]),
        {"standard_errors": {"reviews": 1.0}},
    ),
    "a single test example": (
        suite(datasets=["reviews", dataset("questions", test=1)]),
        {"standard_errors": {"reviews": 1.0}},
    ),
}


@pytest.mark.parametrize("case", list(SOUND))
def test_what_is_sound_is_kept(case: str, repo: Repository) -> None:
    of, changes = SOUND[case]
    register(repo, of)
    answer = post(repo, report(of, metric=of.metric).model_copy(update=changes))
    assert answer.status_code == 201, answer.text


def test_the_same_report_again_changes_nothing(repo: Repository) -> None:
    register(repo, suite())
    first, again = post(repo, report(suite())), post(repo, report(suite()))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    for other in (post(repo, report(suite(), 81.0)), post(repo, report(suite()), "bob")):
        assert other.status_code == 201
    assert len(repo.get(EVALUATE)) == 3
    assert len([e for e in repo.get("/v1/events") if e["type"] == "evaluation.posted"]) == 3


def test_a_correction_can_be_taken_back(repo: Repository) -> None:
    register(repo, suite())
    posted = [post(repo, report(suite(), level)) for level in (80.0, 70.0, 80.0, 80.0)]
    assert [answer.status_code for answer in posted] == [201, 201, 201, 200]
    assert len(repo.get(EVALUATE)) == 3
    assert repo.get(EVALUATE)[-1]["average"] == posted[0].json()["average"]


@both_databases
def test_of_equal_reports_at_once_one_is_kept(repo: Repository) -> None:
    register(repo, suite())
    who = repo.principal("eva", "evaluator")
    ready, news = threading.Barrier(8), []

    def one() -> None:
        ready.wait()
        news.append(evaluations.post_evaluation(repo.ctx, MODEL, "v0", report(suite()), who)[1])

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(news) == [False] * 7 + [True]
    assert len(repo.get(EVALUATE)) == 1


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "null", "100.5"])
def test_a_score_that_is_none_is_refused(number: str, repo: Repository) -> None:
    text = report(scores={"reviews": 12.5}, standard_errors={}, by_seed={}).model_dump_json()
    client = repo.client(repo.token("eva", "evaluator"))
    headers = {"Content-Type": "application/json"}
    answer = client.post(EVALUATE, content=text.replace("12.5", number), headers=headers)
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["code"] == "invalid_request"


# Agreement.


def measured(
    *levels: float, error: float | None = 1.0, first: datetime | None = None, **changes: Any
) -> list[Evaluation]:
    """Return evaluations by a, b, c, ... of a suite of two data sets."""
    start = first or datetime(2026, 6, 1, tzinfo=UTC)
    names = ("reviews", "questions")
    errors = {} if error is None else dict.fromkeys(names, error)
    return [
        Evaluation(
            **{
                "version": "v0",
                "suite": "text-2",
                "suite_digest": "1" * 64,
                "protocol": "frozen",
                "metric": "accuracy",
                "scores": dict.fromkeys(names, level),
                "standard_errors": errors,
                "average": level,
                "standard_error": None if error is None else error / math.sqrt(2),
                "evaluator": "abcdefgh"[index],
                "created_at": start + timedelta(minutes=index),
                **changes,
            }
        )
        for index, level in enumerate(levels)
    ]


def outliers(*levels: float, error: float | None = 1.0) -> list[bool | None]:
    (found,) = agreements(measured(*levels, error=error))
    return [item.outlier for item in found.evaluators]


def test_one_evaluator_agrees_with_himself() -> None:
    (found,) = agreements(measured(80.0))
    assert found.median == 80.0
    (only,) = found.evaluators
    assert (only.difference, only.standard_errors, only.outlier) == (0.0, 0.0, False)


def test_the_one_who_differs_is_the_outlier() -> None:
    assert outliers(80.0, 80.1, 79.9, 90.0) == [False, False, False, True]
    assert outliers(80.0, 80.0, 90.0) == [False, False, True]
    assert outliers(80.0, 80.5, 79.5) == [False, False, False]


def test_of_two_who_differ_nobody_knows_which() -> None:
    assert outliers(80.0, 90.0) == [True, True]
    assert outliers(80.0, 80.5) == [False, False]
    (found,) = agreements(measured(80.0, 84.0))
    # Their difference has the standard error sqrt(1/2 + 1/2).
    assert [item.standard_errors for item in found.evaluators] == pytest.approx([-4.0, 4.0])


def test_without_standard_errors_nobody_can_tell() -> None:
    assert outliers(80.0, 90.0, error=None) == [None, None]
    assert outliers(80.0, 80.0, error=None) == [False, False]


def test_errors_of_zero_do_not_make_rounding_a_difference() -> None:
    assert outliers(80.0, 80.0001, error=0.0) == [False, False]
    assert outliers(80.0, 81.0, error=0.0) == [True, True]


def test_one_strange_data_set_is_found_where_the_average_hides_it() -> None:
    names = [f"d{number}" for number in range(40)]
    groups = measured(80.0, 80.0, 80.0)
    for item in groups:
        scores = dict.fromkeys(names, 80.0)
        if item.evaluator == "c":
            scores["d7"] = 86.0
        item.scores.clear()
        item.scores.update(scores)
        item.standard_errors.update(dict.fromkeys(names, 1.0))
    (found,) = agreements(groups)
    assert [item.datasets for item in found.evaluators] == [{}, {}, {"d7": 6.0}]
    assert [item.outlier for item in found.evaluators] == [False, False, True]


def test_the_newest_scores_of_an_evaluator_count() -> None:
    first = datetime(2026, 7, 1, tzinfo=UTC)
    later = measured(81.0, first=first)
    (found,) = agreements([*measured(60.0, 80.0), *later])
    assert [(item.evaluator, item.average) for item in found.evaluators] == [("a", 81.0), ("b", 80)]


def test_only_the_same_is_compared() -> None:
    found = agreements(
        [
            *measured(80.0, 81.0),
            *measured(60.0, protocol="finetuned"),
            *measured(50.0, suite_digest="2" * 64),
            *measured(40.0, suite_digest=None),
            *measured(30.0, suite_digest=None, scores={"reviews": 30.0}),
        ]
    )
    assert [len(group.evaluators) for group in found] == [2, 1, 1, 1, 1]
    assert [group.median for group in found] == [80.5, 60.0, 50.0, 40.0, 30.0]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=9), st.floats(0.01, 5))
def test_at_least_half_lie_on_each_side(values: list[float], error: float) -> None:
    found = departures(values, [error] * len(values))
    assert [value - points for value, (points, _) in zip(values, found, strict=True)] == (
        pytest.approx([median(values)] * len(values))
    )
    for points, ratio in found:
        assert ratio is not None and math.isfinite(ratio)
        if abs(points) < 1e-300:  # A quotient of the least numbers that there are may be none.
            assert abs(ratio) < 1e-290
        else:
            assert (ratio > 0) == (points > 0) and (ratio < 0) == (points < 0)


def test_the_error_of_a_difference_is_that_of_the_values_around_the_median() -> None:
    # By simulation: the values that are the median, and the one that is far from them, are known.
    rng = random.Random(3)
    for truth, far in (((80.0, 90.0), 1), ((70.0, 80.0, 90.0), 2), ((60.0, 70.0, 80.0, 99.0), 3)):
        errors = [1.0 + index / 2 for index in range(len(truth))]
        drawn = [
            departures([rng.gauss(*pair) for pair in zip(truth, errors, strict=True)], errors)[far]
            for _ in range(4000)
        ]
        differences = [points for points, _ in drawn]
        mean = sum(differences) / len(differences)
        spread = math.sqrt(sum((points - mean) ** 2 for points in differences) / len(differences))
        said = median(points / ratio for points, ratio in drawn if ratio)
        assert said == pytest.approx(spread, rel=0.05)


@both_databases
def test_agreement_is_shown_for_a_base(repo: Repository) -> None:
    register(repo, suite())
    for name, level in (("eva", 80.0), ("bob", 80.2), ("cy", 60.0)):
        assert post(repo, report(suite(), level), name).status_code == 201
    (found,) = repo.get(f"{BASE}/agreement")
    assert (found["suite"], found["suite_digest"]) == ("text-2", suite().digest())
    assert found["median"] == 80.0
    assert {e["evaluator"]: e["outlier"] for e in found["evaluators"]} == {
        "eva": False,
        "bob": False,
        "cy": True,
    }
    assert found["evaluators"][2]["datasets"] == {"reviews": -20.0, "questions": -20.0}
