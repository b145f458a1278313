from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from coldfusion_shared.errors import ColdFusionError, InvalidRequest, SuiteChanged
from coldfusion_shared.evaluate.comparison import compare
from coldfusion_shared.evaluate.comparison_text import comparison_text, verdict_text
from coldfusion_shared.evaluate.results import Evaluated
from tests.shared.evaluate.measured import coins, entry, evaluated, result, unscored

FILMS, NEWS = entry("films", seen=True), entry("news", seen=False)
BOTH = (FILMS, NEWS)


def test_a_base_that_is_plainly_better_is_better() -> None:
    found = compare(coins(0.6, BOTH), coins(0.8, BOTH))
    assert found.verdict == "better" and found.unknown is None
    assert found.average.low is not None and 0 < found.average.low < found.average.points
    assert [data.scores.verdict for data in found.datasets] == ["better", "better"]
    assert compare(coins(0.8, BOTH), coins(0.6, BOTH)).verdict == "worse"


def test_a_base_is_no_better_than_itself() -> None:
    base = coins(0.7, BOTH)
    found = compare(base, base)
    assert found.verdict == "no difference" and found.average.points == 0
    assert found.flips is not None and found.flips.negative == found.flips.positive == 0


def test_two_bases_the_other_way_round_differ_by_as_much_the_other_way() -> None:
    one, other = coins(0.65, BOTH), coins([0.7, 0.6], BOTH)
    there, back = compare(one, other), compare(other, one)
    assert back.average.points == pytest.approx(-there.average.points)
    assert back.average.standard_error == pytest.approx(there.average.standard_error)
    assert there.average.low is not None
    assert back.average.high == pytest.approx(-there.average.low)
    assert there.flips is not None and back.flips is not None
    assert there.flips.negative == pytest.approx(back.flips.positive)


def test_what_is_hard_for_both_does_not_count() -> None:
    one, other = coins(0.7, (FILMS,)), coins(0.73, (FILMS,))
    error = compare(one, other).average.standard_error
    assert error is not None and one.standard_error is not None
    assert error < 0.75 * 2**0.5 * one.standard_error


def test_from_one_seed_nothing_is_known() -> None:
    found = compare(coins(0.5, BOTH, seeds=1), coins(0.95, BOTH, seeds=1))
    assert found.verdict == "not known" and found.average.points > 40
    assert found.average.standard_error is None and found.average.low is None
    assert found.unknown is not None and "--seeds 3" in found.unknown
    told = verdict_text(found, "v0", "v1")
    assert told.startswith("Not known whether v1 is better than v0 (+4") and "--seeds 3" in told


def test_flips_are_counted_for_each_seed() -> None:
    labels = [0, 1, 0, 1]
    before = evaluated([FILMS], [result(FILMS, labels, [[0, 1, 0, 0], [0, 1, 1, 1]])])
    after = evaluated([FILMS], [result(FILMS, labels, [[1, 1, 0, 1], [0, 1, 0, 1]])])
    (data,) = compare(before, after).datasets
    # Of eight: one right turned wrong; two wrong turned right.
    assert data.flips is not None
    assert (data.flips.negative, data.flips.positive) == (12.5, 25.0)
    assert data.scores.points == data.flips.positive - data.flips.negative


def test_a_regression_has_no_flips_but_a_difference() -> None:
    found = entry("alike", task="regression", metric="Pearson", labels=0)
    labels = [float(n % 7) for n in range(60)]
    rough = [[x + (n * k) % 5 for n, x in enumerate(labels)] for k in (2, 3, 4)]
    exact = [[x + (n * k) % 3 / 2 for n, x in enumerate(labels)] for k in (2, 4, 5)]
    compared = compare(
        evaluated([found], [result(found, labels, rough)]),
        evaluated([found], [result(found, labels, exact)]),
    )
    assert compared.verdict == "better"
    assert compared.flips is None and compared.datasets[0].flips is None


def test_a_task_without_guesses_leaves_the_average_unknown_but_not_the_others() -> None:
    answers = entry("answers", task="question-answering", metric="F1", labels=0)
    before, after = (
        evaluated([FILMS, answers], [coins(chance, (FILMS,)).results[0], unscored(answers, scores)])
        for chance, scores in ((0.6, [50.0, 51.0, 52.0]), (0.8, [60.0, 61.0, 62.0]))
    )
    found = compare(before, after)
    assert found.verdict == "not known"
    assert found.unknown is not None and "'answers'" in found.unknown
    assert [data.scores.verdict for data in found.datasets] == ["better", "not known"]
    assert found.seen is not None and found.seen.verdict == "better"


def test_seen_and_unseen_data_sets_have_averages_of_their_own() -> None:
    found = compare(coins(0.6, BOTH), coins([0.8, 0.6], BOTH))
    assert found.seen is not None and found.unseen is not None
    assert (found.seen.verdict, found.unseen.verdict) == ("better", "no difference")
    assert found.average.points == pytest.approx((found.seen.points + found.unseen.points) / 2)
    unsaid = (entry("films"), entry("news"))
    found = compare(coins(0.6, unsaid), coins(0.8, unsaid))
    assert found.seen is None and found.unseen is None


def changed(name: str, **fields: Any) -> Evaluated:
    return coins(0.6, (entry(name, seen=True, **fields), NEWS))


@pytest.mark.parametrize(
    ("other", "error", "words"),
    [
        (changed("films", digest="1" * 64), SuiteChanged, "data of 'films' differ"),
        (changed("films", metric="Matthews"), SuiteChanged, "'films' was measured in another way"),
        (changed("books"), SuiteChanged, "only one of them has the data set 'books'"),
        (coins(0.6, BOTH, max_length=32), SuiteChanged, "max_length differs"),
        (coins(0.6, (NEWS, FILMS)), SuiteChanged, "order of the data sets"),
        (coins(0.6, BOTH, protocol="finetuned"), InvalidRequest, "frozen.*finetuned"),
        (coins(0.6, BOTH, seeds=2), InvalidRequest, r"3 seeds \(0, 1, 2\).*2 seeds \(0, 1\)"),
        (coins(0.6, BOTH, seeds=1), InvalidRequest, "with the seed 0"),
        (coins(0.6, BOTH, examples=150), SuiteChanged, "same examples of 'films'"),
    ],
)
def test_what_was_not_measured_alike_is_not_compared(
    other: Evaluated, error: type[ColdFusionError], words: str
) -> None:
    with pytest.raises(error, match=words) as raised:
        compare(coins(0.6, BOTH), other)
    assert raised.value.hint is not None and "Measure both" in raised.value.hint


def test_another_name_of_the_same_suite_does_no_harm() -> None:
    one = coins(0.6, BOTH)
    assert compare(one, replace(one, suite=one.suite.model_copy(update={"name": "b"})))


def test_programs_get_all_of_it() -> None:
    found = compare(coins(0.6, BOTH), coins(0.8, BOTH))
    document = json.loads(json.dumps(found.document()))
    assert document["verdict"] == "better" and document["seeds"] == [0, 1, 2]
    low, high = document["average"]["interval"]
    assert low < document["average"]["difference"] < high
    films = document["datasets"][0]
    assert films["name"] == "films" and films["seen"] is True
    assert films["difference"] == pytest.approx(films["after"] - films["before"])
    assert films["positive_flips"] > films["negative_flips"]
    assert document["unseen"]["verdict"] == "better"


def test_people_get_a_table_and_a_sentence() -> None:
    wide = entry("电影评论", seen=True)
    both = (wide, entry("e\u0301tudes", seen=False))
    lines = comparison_text(compare(coins(0.6, both), coins(0.8, both)), "v3", "v7").splitlines()
    head, first, second = lines[:3]
    assert head.split()[:5] == ["DATA", "SET", "METRIC", "v3", "v7"]
    # In columns of a terminal: four wide letters take eight, an accent none.
    assert first.index("accuracy") + 4 == head.index("METRIC") == second.index("accuracy") - 1
    assert " ± " in first and first.count("%") == 2
    assert [line.split("  ")[0] for line in lines[3:6]] == [
        "average",
        "average, seen",
        "average, unseen",
    ]
    assert lines[-1].startswith("v7 is better than v3: +")
    assert "95% interval +" in lines[-1]


def test_no_difference_is_said_with_the_noise() -> None:
    base = coins(0.7, BOTH)
    told = verdict_text(compare(base, base), "v3", "v4")
    assert told.startswith("No difference between v3 and v4 at the measured noise: +0.00 points")
    assert "-0.0" not in comparison_text(compare(base, base), "v3", "v4").splitlines()[1]
