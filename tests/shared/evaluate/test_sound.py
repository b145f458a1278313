"""Files of scores that were changed, cut, or made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.evaluate.results import Evaluated
from tests.shared.evaluate.measured import coins, entry, evaluated, result, unscored

FILMS, NEWS = entry("films", seen=True), entry("news", metric="macro F1")
RATINGS = entry("ratings", task="regression", metric="Spearman", labels=0, test=6)
ANSWERS = entry("answers", task="question-answering", metric="F1", labels=0)
NUMBERS = [0.5, 1, 2.25, 3, 4, 5]


def good() -> Evaluated:
    guesses = [[*NUMBERS[::-1]], [*NUMBERS], [1.5, 1.0, 0.0, 2.0, 7.5, -3.0]]
    return evaluated(
        (FILMS, NEWS, RATINGS, ANSWERS),
        (
            *coins(0.7, (FILMS, NEWS)).results,
            result(RATINGS, NUMBERS, guesses),
            unscored(ANSWERS, [50.0, 51.0, 52.5]),
        ),
    )


def test_scores_come_back_as_they_were() -> None:
    found = good()
    assert Evaluated.from_json(found.to_json()) == found
    small = evaluated((FILMS,), coins(0.7, (FILMS,), pool=130).results)
    assert Evaluated.from_json(small.to_json()) == small


def test_an_error_is_that_of_its_pool() -> None:
    labels, row = [0, 1] * 100, [[1] * 10, [1] * 60, []]
    guesses = [[*wrong, *labels[len(wrong) :]] for wrong in row]
    found = evaluated((FILMS,), [result(FILMS, labels, guesses, 150)])
    document = json.loads(found.to_json())
    document["results"][0]["pool"] = 1000
    with pytest.raises(InvalidRequest, match="its standard_error is"):
        Evaluated.from_json(json.dumps(document))


def refused(change: Callable[[Any], object]) -> str:
    document = json.loads(good().to_json())
    change(document)
    with pytest.raises(InvalidRequest, match="no scores of an evaluation") as caught:
        Evaluated.from_json(json.dumps(document))
    assert caught.value.hint and "\n" not in caught.value.message
    return caught.value.message


def set_in(*path: Any, to: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for part in path[:-1]:
            document = document[part]
        document[path[-1]] = to

    return change


def films(*path: Any, to: Any) -> Callable[[Any], None]:
    return set_in("results", 0, *path, to=to)


NAN, MANY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (films("name", to="movies"), "not those of its suite's data sets"),
        (lambda all_: all_["results"].reverse(), "not those of its suite's data sets"),
        (lambda all_: all_["results"].pop(), "not those of its suite's data sets"),
        (set_in("results", to=[]), "not those of its suite's data sets"),
        (films("metric", to="Matthews"), "'films': its metric is not the suite's"),
        (films("seen", to=False), "'films': its seen is not the suite's"),
        (films("data_digest", to="1" * 64), "'films': its data_digest is not the suite's"),
        (films("seeds", to=[0, 1, 3]), "its seeds are not those of the other data sets"),
        (films("seeds", to=[0, 0, 1]), "each once"),
        (films("seeds", to=[]), "each once"),
        (films("by_seed", to=[70.0, 71.0]), "3 seeds have 2 scores"),
        (films("by_seed", 1, to=NAN), "a score is no finite number"),
        (films("score", to=MANY), "a score is no finite number"),
        (films("standard_error", to=NAN), "a score is no finite number"),
        (films("standard_error", to=0.01), "its standard_error is 0.01, and by its guesses"),
        (films("standard_error", to=None), "its standard_error is None, and by its guesses"),
        (films("by_seed", 1, to=99.0), "its score of seed 1 is 99.0, and by its guesses"),
        (films("score", to=99.0), "its score is 99.0, and by its guesses"),
        (films("labels", to=None), "labels or guesses are missing"),
        (films("guesses", to=None), "labels or guesses are missing"),
        (films("labels", to=[]), "200 test examples have 0 labels"),
        (films("labels", to=[0, 1]), "200 test examples have 2 labels"),
        (films("guesses", 2, to=[1] * 199), "200 test examples have 199"),
        (films("guesses", to=[[1] * 200]), "3 seeds have 1 rows of guesses"),
        (films("guesses", 0, 3, to=2), "none of the 2 labels"),
        (films("guesses", 0, 3, to=-1), "none of the 2 labels"),
        (films("guesses", 0, 3, to=10**18), "none of the 2 labels"),
        (films("guesses", 0, 3, to=0.5), "none of the 2 labels"),
        (films("labels", 3, to=NAN), "no finite number"),
        (films("train", to=99), "frozen does not draw 99 of 1000 training examples"),
        (films("pool", to=50), "frozen does not draw 100 of 50"),
        (films("pool", to=0), "of 0 training examples"),
        (set_in("results", 2, "labels", 0, to=MANY), "'ratings': a label or a guess is no finite"),
        (set_in("results", 2, "guesses", 0, 0, to=10**400), "'ratings': a label or a guess is no"),
        (set_in("results", 2, "guesses", 0, 0, to=-9), "'ratings': its score of seed 0 is"),
        (set_in("results", 3, "guesses", to=[[1]]), "question-answering has no guesses"),
        (set_in("results", 3, "standard_error", to=1.0), "its standard_error is 1.0"),
        (set_in("results", 3, "score", to=50.0), "'answers': its score is 50.0"),
        (set_in("suite", "datasets", 1, "metric", to="Pearson"), "its metric is not the suite's"),
        (set_in("protocol", to="thorough"), "protocol"),
        (films("pool", to="many"), "results.0.pool"),
        (lambda all_: all_["results"][0].pop("pool"), "results.0.pool"),
    ],
)
def test_what_does_not_fit_together_is_named(change: Callable[[Any], object], says: str) -> None:
    assert says in refused(change)


def test_a_metric_that_its_task_has_not() -> None:
    def change(document: Any) -> None:
        document["suite"]["datasets"][0]["metric"] = document["results"][0]["metric"] = "Pearson"

    assert "the metric 'Pearson' does not fit the task classification" in refused(change)


STRANGE: list[Any] = [None, True, -1, 0, 10**30, 2**63, 1e308, NAN, "", "x", [], {}, [[]], [None]]


@given(st.data())
def test_no_document_of_the_like_ends_in_another_error(data: Any) -> None:
    document = json.loads(good().to_json())
    at: Any = document
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.booleans()):
            break
        at = at[key]
    at[key] = data.draw(st.sampled_from(STRANGE))
    try:
        found = Evaluated.from_json(json.dumps(document))
    except InvalidRequest as error:
        assert "\n" not in error.message
    else:
        assert len(found.results) == 4
