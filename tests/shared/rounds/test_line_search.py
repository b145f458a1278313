"""Which server learning rate is the best."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.rounds.line_search import Found, Tried, best, search
from coldfusion_shared.schemas.evaluations import EvaluationReport
from coldfusion_shared.schemas.gates import Gate
from tests.shared.rounds.reports import gate, report, suite

SUITE = suite("a", "b")


def _report(score: float) -> EvaluationReport:
    return report({"a": score, "b": score})


BASE = {"alice": _report(80), "bob": _report(70)}
Scores = Mapping[float, Mapping[str, float]]


def _tried(scores: Scores, norms: Mapping[float, float]) -> list[Tried]:
    return [
        Tried(
            f"rate {rate:g}",
            rate,
            norms.get(rate, 0.01),
            {name: _report(score) for name, score in found.items()},
        )
        for rate, found in scores.items()
    ]


def _found(
    policy: Gate,
    scores: Scores,
    norms: Mapping[float, float] | None = None,
    *,
    timed_out: bool = False,
) -> Found:
    return search(policy, _tried(scores, norms or {}), SUITE, BASE, timed_out=timed_out)


@pytest.mark.parametrize(
    ("rates", "scores", "index"),
    [
        ([0.5, 1.0, 2.0], [80, 79, 81], 2),
        ([0.5, 0.9, 2.0], [80, 80, 80], 1),
        ([0.5, 1.5], [80, 80], 0),
        ([1.5, 0.5], [80, 80], 1),
        ([3.0], [0], 0),
    ],
)
def test_the_highest_is_the_best_and_of_equals_the_nearest_to_one(
    rates: list[float], scores: list[float], index: int
) -> None:
    assert best(rates, scores) == index


@given(
    st.lists(
        st.tuples(st.floats(0.01, 10), st.integers(0, 3)), min_size=1, unique_by=lambda p: p[0]
    )
)
def test_the_order_of_rates_changes_nothing(pairs: list[tuple[float, int]]) -> None:
    rates, scores = zip(*pairs, strict=True)
    again = pairs[::-1]
    assert pairs[best(rates, scores)] == again[best(rates[::-1], scores[::-1])]


def test_the_best_of_all_goes_through_the_gate_and_all_scores_are_kept() -> None:
    found = _found(gate(), {0.5: {"alice": 81}, 1.0: {"alice": 82}, 2.0: {"alice": 79}})
    assert found.index == 1
    assert found.verdict.passed is True
    assert found.verdict.evaluators[0].candidate == 82
    assert [(one.candidate, one.server_lr, one.score) for one in found.verdict.line_search] == [
        ("rate 0.5", 0.5, 81),
        ("rate 1", 1.0, 82),
        ("rate 2", 2.0, 79),
    ]


def test_if_even_the_best_is_worse_than_the_base_the_gate_is_failed() -> None:
    found = _found(gate(), {0.5: {"alice": 78}, 1.0: {"alice": 79}})
    assert (found.index, found.verdict.passed) == (1, False)


def test_only_those_choose_who_have_measured_all() -> None:
    # bob is lower than alice, and would make the rate 1 look worse.
    scores = {0.5: {"alice": 81}, 1.0: {"alice": 82, "bob": 71}}
    found = _found(gate(), scores)
    assert found.index == 1
    assert [one.evaluator for one in found.verdict.evaluators] == ["alice"]


def test_it_waits_until_all_are_measured() -> None:
    scores = {0.5: {"alice": 81}, 1.0: {"bob": 82}, 2.0: {}}
    found = _found(gate(), scores)
    assert (found.index, found.verdict.passed) == (None, None)
    assert found.verdict.reason.endswith(
        "0 of 1 evaluators have measured all that is compared; bob has not measured the candidate "
        "of rate 0.5, 2; alice has not measured the candidate of rate 1, 2."
    )
    assert [one.score for one in found.verdict.line_search] == [None, None, None]
    assert _found(gate(on_timeout="reject"), scores, timed_out=True).verdict.passed is False
    assert _found(gate(on_timeout="wait"), scores, timed_out=True).verdict.passed is None


def test_when_time_is_up_it_is_the_rate_nearest_to_one_if_nobody_has_measured_all() -> None:
    policy = gate(on_timeout="publish")
    found = _found(policy, {0.5: {}, 0.9: {}}, timed_out=True)
    assert (found.index, found.verdict.passed) == (1, True)
    # Unless it was measured, and was worse.
    found = _found(policy, {0.5: {}, 0.9: {"alice": 60}}, timed_out=True)
    assert (found.index, found.verdict.passed) == (1, False)


def test_when_time_is_up_those_choose_who_have_measured_all() -> None:
    policy = gate(on_timeout="publish", min_evaluators=2)
    scores = {0.5: {"alice": 82}, 1.0: {"alice": 81, "bob": 90}}
    assert _found(policy, scores).index is None
    found = _found(policy, scores, timed_out=True)
    assert (found.index, found.verdict.passed) == (0, True)


@pytest.mark.parametrize(("way", "passed"), [("wait", None), ("reject", False), ("publish", True)])
def test_when_time_is_up_too_few_do_not_decide_but_that_it_fails(
    way: str, passed: bool | None
) -> None:
    policy = gate(on_timeout=way, min_evaluators=2)
    found = _found(policy, {0.5: {"alice": 82}, 1.0: {"alice": 81}}, timed_out=True)
    assert found.verdict.passed is passed
    found = _found(policy, {0.5: {"alice": 60}, 1.0: {"alice": 70}}, timed_out=True)
    assert (found.index, found.verdict.passed) == (1, False)


def test_a_step_that_is_too_long_is_no_choice() -> None:
    policy = gate(max_relative_norm=0.1)
    found = _found(policy, {1.0: {"alice": 81}, 4.0: {}}, {4.0: 0.2})
    assert (found.index, found.verdict.passed) == (0, True)
    assert [one.score for one in found.verdict.line_search] == [81, None]
    found = _found(policy, {1.0: {"alice": 81}, 4.0: {}}, {1.0: 0.11, 4.0: 0.2})
    assert (found.index, found.verdict.passed) == (None, False)
    assert found.verdict.reason == "The step is 0.11 of the base's norm, 0.1 is allowed."


def test_a_suite_that_nobody_knows_is_waited_for() -> None:
    tried = _tried({1.0: {"alice": 81}}, {})
    assert search(gate(), tried, None, BASE).verdict.passed is None
    late = search(gate(on_timeout="publish"), tried, None, BASE, timed_out=True)
    assert (late.index, late.verdict.passed) == (0, True)
