"""Evaluations put together: what may share a line, what counts of several, what differs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from coldfusion_server.dashboard import telling
from coldfusion_server.dashboard.scores import SHOWN, Series, series
from coldfusion_server.dashboard.values import Value, average, difference, middle, student
from coldfusion_shared.schemas.evaluations import OWN_EVALUATOR, Evaluation
from tests.dashboard.measured import evaluation

ONE, OTHER = "1" * 64, "2" * 64


def only(*evaluations: Evaluation, **seen: bool | None) -> Series:
    (found,) = series(evaluations, {ONE: seen})
    return found


def scores_of(found: Series) -> list[float]:
    return [value.score for value in found.averages]


# Values.


def test_the_error_of_an_average_shrinks_with_independent_data_sets() -> None:
    assert average([Value(60.0, 3.0), Value(70.0, 4.0)]) == Value(65.0, 2.5)
    assert average([Value(60.0, 3.0), Value(70.0)]) == Value(65.0, None)


def test_the_error_of_a_difference_is_that_of_both() -> None:
    assert difference(Value(70.0, 3.0), Value(60.0, 4.0)) == Value(10.0, 5.0)
    assert difference(Value(70.0, 3.0), Value(60.0)) == Value(10.0, None)


def test_more_evaluators_are_not_more_certain() -> None:
    assert middle([Value(60.0, 1.0), Value(10.0, 1.0), Value(61.0, 1.0)]) == Value(60.0, 1.0)
    assert middle([Value(60.0, 1.0), Value(62.0, 3.0)]) == Value(61.0, 2.0)


@given(st.one_of(st.integers(1, 40).map(float), st.floats(10, 1e6)))
def test_the_quantiles_are_those_of_students_t(freedom: float) -> None:
    assert student(freedom) == pytest.approx(t.ppf(0.975, freedom), abs=6e-4)


@given(st.floats(1, 10, exclude_max=True))
def test_of_few_degrees_of_freedom_whole_ones_count(freedom: float) -> None:
    assert student(freedom) == student(float(int(freedom))) >= t.ppf(0.975, freedom) - 6e-4


def test_the_fewer_seeds_the_more_is_chance() -> None:
    for freedom, least in ((1, 12.71), (2, 4.31), (4, 2.78), (20, 2.09), (10**6, 1.97)):
        assert Value(least, 1.0, freedom).clear and Value(-least, 1.0, freedom).clear
        assert not Value(least - 0.02, 1.0, freedom).clear
    assert not Value(0.0, 0.0, 2).clear and Value(0.1, 0.0, 2).clear


def test_what_has_no_error_is_never_clear() -> None:
    assert not Value(90.0).clear and not Value(90.0, None, 2).clear
    assert not Value(90.0, 0.0).clear, "of an error whose seeds are not known nobody can tell"


def test_degrees_of_freedom_add_up_by_welchs_formula() -> None:
    same = [Value(60.0, 1.0, 2)] * 10
    # 10 data sets of equal errors: 10^2 / (10 / (2 + 2)) - 2.
    assert average(same).freedom == pytest.approx(38)
    assert difference(average(same), average(same)).freedom == pytest.approx(78)
    assert average([Value(60.0, 1.0, 2), Value(60.0, 1e-9, 2)]).freedom == pytest.approx(2)
    assert average([Value(60.0, 0.0, 2), Value(60.0, 0.0, 4)]).freedom == 2
    assert average([Value(60.0, 1.0, 2), Value(60.0, 1.0)]).freedom is None
    assert middle([Value(60.0, 1.0, 2), Value(60.0, 1.0, 9)]).freedom == 2


@pytest.mark.parametrize(("seeds", "datasets"), [(2, 1), (3, 1), (3, 10), (5, 3)])
def test_equal_bases_are_seldom_called_different(seeds: int, datasets: int) -> None:
    """By simulation: the whole error is the seeds', which is the hardest case."""
    rng = np.random.default_rng(seeds)

    def measured() -> Value:
        drawn = rng.normal(70, 1, (datasets, seeds))
        errors = drawn.std(-1, ddof=1) / seeds**0.5
        pairs = zip(drawn.mean(-1), errors, strict=True)
        return average(Value(float(score), float(error), seeds - 1) for score, error in pairs)

    wrong = sum(difference(measured(), measured()).clear for _ in range(2000)) / 2000
    # 5 percent, and what 2000 draws may add to that.
    assert wrong < 0.072


# What shares a line.


def test_the_newest_evaluation_counts_and_frozen_comes_first() -> None:
    found = series(
        [
            evaluation("v0", "finetuned", a=80.0),
            evaluation("v1", a=66.0, at=2),
            evaluation("v1", a=10.0, at=1),
            evaluation("v0", a=60.0),
        ]
    )
    assert [item.protocol for item in found] == ["frozen", "finetuned"]
    assert found[0].versions == ["v0", "v1"] and scores_of(found[0]) == [60.0, 66.0]
    assert found[0].compared and found[0].change.score == 6.0
    assert not found[1].compared


def test_what_was_measured_on_other_data_never_shares_a_line() -> None:
    found = series(
        [
            evaluation("v0", a=60.0),
            evaluation("v1", a=61.0, digest=ONE),
            evaluation("v2", a=62.0, digest=OTHER),
            evaluation("v3", a=63.0, digest=ONE),
            evaluation("v3", a=63.0, digest=ONE, metric="macro F1"),
        ]
    )
    assert {(item.digest, item.metric): item.versions for item in found} == {
        (None, "accuracy"): ["v0"],
        (ONE, "accuracy"): ["v1", "v3"],
        (ONE, "macro F1"): ["v3"],
        (OTHER, "accuracy"): ["v2"],
    }
    assert len({item.key for item in found}) == 4


def test_the_same_data_under_two_names_share_a_line() -> None:
    found = only(
        evaluation("v0", a=60.0, digest=ONE, suite="text"),
        evaluation("v1", a=61.0, digest=ONE, suite="text, too", at=1),
    )
    assert (found.versions, found.suite) == (["v0", "v1"], "text, too")


def test_what_is_pinned_comes_before_what_is_not_and_the_newest_base_first() -> None:
    found = series(
        [
            evaluation("v9", a=60.0, suite="a"),
            evaluation("v1", a=60.0, digest=ONE),
            evaluation("v2", a=60.0, digest=OTHER),
        ]
    )
    assert [item.digest for item in found] == [OTHER, ONE, None]


def test_a_name_moves_no_series_to_the_front() -> None:
    long = [evaluation(f"v{n}", a=60.0, digest=ONE, suite="zebras") for n in range(3)]
    short = [evaluation(f"v{n}", a=60.0, digest=OTHER, suite="aardvarks") for n in (2, 5)]
    newer = evaluation("v6", a=60.0, digest="3" * 64, suite="badgers")
    assert [item.suite for item in series([newer, *short, *long])] == [
        "zebras",
        "aardvarks",
        "badgers",
    ]
    late = evaluation("v6", a=60.0, digest=ONE, suite="zebras", metric="macro F1")
    assert [item.versions for item in series([newer, late])] == [["v6"], ["v6"]]
    assert [item.suite for item in series([newer, late])] == ["badgers", "zebras"]


def test_the_repositorys_own_evaluators_series_is_the_headline() -> None:
    own = evaluation("v4", "few-shot", a=60.0, digest=OTHER, suite="z", evaluator=OWN_EVALUATOR)
    others = [evaluation(f"v{n}", a=90.0, digest=ONE, suite="a") for n in range(9)]
    assert [item.suite for item in series([*others, own])] == ["z", "a"]
    # Several of its own: as of others.
    frozen = evaluation("v1", a=60.0, digest=ONE, suite="b", evaluator=OWN_EVALUATOR)
    found = series([own, frozen])
    assert [item.protocol for item in found] == ["frozen", "few-shot"]


def test_bases_are_in_the_order_of_their_numbers() -> None:
    found = only(evaluation("v10", a=1.0), evaluation("v9", a=2.0))
    assert found.versions == ["v9", "v10"] and not found.compared


# Several evaluators.


def test_one_of_three_evaluators_does_not_move_the_line() -> None:
    found = only(
        evaluation("v0", a=60.0, b=70.0, errors=1.0),
        evaluation("v0", a=61.0, b=69.0, errors=1.0, evaluator="ed"),
        evaluation("v0", a=0.0, b=100.0, errors=1.0, evaluator="mallory", at=9),
    )
    assert found.bases[0].values == {"a": Value(60.0, 1.0), "b": Value(70.0, 1.0)}
    assert found.averages == [Value(65.0, math.sqrt(0.5))]
    assert [item.evaluator for item in found.bases[0].evaluations] == ["eve", "ed", "mallory"]


def test_of_two_evaluators_the_mean_counts() -> None:
    found = only(evaluation("v0", a=60.0), evaluation("v0", a=62.0, evaluator="ed"))
    assert scores_of(found) == [61.0]


# Comparing.


def test_bases_are_compared_on_what_both_were_measured_on() -> None:
    found = only(evaluation("v0", a=60.0, b=10.0), evaluation("v1", a=61.0, c=90.0))
    assert (found.first.score, found.last.score, found.change.score) == (60.0, 61.0, 1.0)
    table = found.table(["v0", "v1"], ["v0"])
    assert [
        (row.name, [value and value.score for value in row.values + row.changes])
        for row in table.datasets
    ] == [("a", [60.0, 61.0, 1.0]), ("b", [10.0, None, None]), ("c", [None, 90.0, None])]
    assert not found.even
    assert [gain.name for gain in found.gains_by_dataset] == ["a"]


def test_bases_without_a_common_data_set_show_their_averages() -> None:
    found = only(evaluation("v0", a=60.0), evaluation("v1", b=70.0))
    assert (found.first.score, found.last.score) == (60.0, 70.0)
    assert found.gains == [] and found.gains_by_dataset == []


def test_a_table_compares_with_the_bases_that_were_measured() -> None:
    found = only(evaluation("v0", a=60.0), evaluation("v3", a=64.0))
    table = found.table(["v0", "v2", "v3"], ["v0", "v2"])
    assert (table.versions, table.against) == (["v0", "v3"], ["v0"])
    (row,) = table.averages
    assert [value and value.score for value in row.values + row.changes] == [60.0, 64.0, 4.0]


def test_gains_go_from_best_to_worst_under_the_averages() -> None:
    found = only(evaluation("v0", a=60.0, b=60.0, c=60.0), evaluation("v1", a=60.0, b=63.0, c=57.0))
    assert [gain.name for gain in found.gains] == ["Average"]
    assert [(gain.name, gain.value.score) for gain in found.gains_by_dataset] == [
        ("b", 3.0),
        ("a", 0.0),
        ("c", -3.0),
    ]


def test_seen_and_unseen_are_averaged_apart() -> None:
    found = only(
        evaluation("v0", a=60.0, b=70.0, c=50.0, errors=3.0, digest=ONE),
        evaluation("v1", a=64.0, b=74.0, c=40.0, errors=4.0, digest=ONE),
        a=True, b=True, c=False,
    )  # fmt: skip
    assert [(part.kind, part.names) for part in found.parts] == [
        ("seen", ["a", "b"]),
        ("unseen", ["c"]),
    ]
    seen, unseen = found.part_averages
    assert seen == [Value(65.0, math.sqrt(18) / 2), Value(69.0, math.sqrt(32) / 2)]
    assert unseen == [Value(50.0, 3.0), Value(40.0, 4.0)]
    rows = [(gain.name, gain.kind, gain.value.score) for gain in found.gains]
    assert rows[1:] == [("Average of seen", "seen", 4.0), ("Average of unseen", "unseen", -10.0)]
    assert [gain.kind for gain in found.gains_by_dataset] == ["seen", "seen", "unseen"]


@pytest.mark.parametrize(
    ("seen", "parts"),
    [
        ({}, []),
        ({"a": True, "b": True}, []),
        ({"a": None, "b": None}, []),
        ({"a": True, "b": None}, ["seen"]),
        ({"a": True, "b": False}, ["seen", "unseen"]),
    ],
)
def test_there_are_parts_only_where_they_differ(
    seen: dict[str, bool | None], parts: list[str]
) -> None:
    found = only(evaluation("v0", a=60.0, b=70.0, digest=ONE), **seen)
    assert [part.kind for part in found.parts] == parts


def test_what_a_suite_says_holds_for_its_digest_alone() -> None:
    (found,) = series([evaluation("v0", a=1.0, b=2.0)], {ONE: {"a": True, "b": False}})
    assert found.parts == []


@pytest.mark.parametrize(
    ("scores", "errors", "seeds", "verdict"),
    [
        ((60.0, 64.0), 1.0, [0, 1, 2], "better"),
        ((60.0, 56.0), 1.0, [0, 1, 2], "worse"),
        ((60.0, 63.0), 1.0, [0, 1, 2], "unclear"),
        ((60.0, 63.0), 1.0, list(range(30)), "better"),
        ((60.0, 60.001), 0.0, [0, 1, 2], "same"),
        ((60.0, 90.0), 1.0, [0], "one seed"),
        ((60.0, 90.0), None, [], "unknown"),
        ((60.0, 90.0), None, [0, 1, 2], "unknown"),
        ((60.0, 90.0), 1.0, [], "unknown"),
    ],
)
def test_the_verdict_is_no_bolder_than_the_noise_allows(
    scores: tuple[float, float], errors: float | None, seeds: list[int], verdict: str
) -> None:
    found = only(
        *(
            evaluation(f"v{number}", a=score, errors=errors, seeds=seeds)
            for number, score in enumerate(scores)
        )
    )
    assert found.verdict == verdict


def test_a_table_shows_the_first_base_and_the_newest() -> None:
    found = only(*(evaluation(f"v{number}", a=60.0) for number in range(100)))
    assert len(found.shown) == SHOWN
    assert found.shown[0] == "v0" and found.shown[1:] == [f"v{i}" for i in range(89, 100)]


def test_gains_are_told_in_a_sentence() -> None:
    found = only(
        evaluation("v0", a=60.0, b=60.0, c=60.0, errors=1.0, seeds=[0, 1, 2]),
        evaluation("v1", a=60.5, b=64.0, c=56.0, errors=1.0, seeds=[0, 1, 2]),
    )
    assert telling.gains(found) == (
        "v1 is better than v0 on 2 of 3 data sets; 2 of the 3 differences are more than chance "
        "explains."
    )
    assert telling.extremes(found.gains_by_dataset) == (
        "b +4.00 ± 1.41, c \N{MINUS SIGN}4.00 ± 1.41"
    )
    without = only(evaluation("v0", a=60.0), evaluation("v1", a=59.0))
    assert telling.gains(without) == "v1 is better than v0 on 0 of 1 data set."
