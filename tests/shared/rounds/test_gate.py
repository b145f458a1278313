"""Whether a candidate is published."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.rounds.gate import Measurements, decide
from coldfusion_shared.schemas.evaluations import EvaluationReport
from coldfusion_shared.schemas.gates import Gate, GateVerdict
from tests.shared.rounds.reports import gate, report, suite

SUITE = suite("a", "b")
BASE = report({"a": 80, "b": 70})
Reports = Mapping[str, EvaluationReport]


def _decided(
    policy: Gate, base: Reports, candidate: Reports, *, timed_out: bool = False
) -> GateVerdict:
    return decide(policy, 0.01, Measurements(SUITE, base, candidate, timed_out))


def _by_alice(policy: Gate, candidate: EvaluationReport) -> GateVerdict:
    return _decided(policy, {"alice": BASE}, {"alice": candidate})


def test_without_a_gate_it_is_published() -> None:
    found = decide(Gate(), None)
    assert (found.passed, found.kind) == (True, "none")


@pytest.mark.parametrize(
    ("norm", "passed"),
    [(0.0, True), (0.1, True), (0.11, False), (None, False), (float("nan"), False)],
)
def test_the_step_may_be_so_long(norm: float | None, passed: bool) -> None:
    found = decide(Gate(kind="norm", max_relative_norm=0.1), norm)
    assert found.passed is passed


def test_a_step_that_is_too_long_is_not_evaluated() -> None:
    found = decide(gate(max_relative_norm=0.1), 0.2)
    assert found.passed is False
    assert found.reason == "The step is 0.2 of the base's norm, 0.1 is allowed."


def test_all_numbers_are_told() -> None:
    candidate = report({"a": 80.6, "b": 69.2})
    found = _by_alice(gate(tolerance=0.5), candidate)
    assert found.passed is True
    assert found.reason == (
        "By alice's measurement the mean score changed by -0.10 points (a loss of 0.50 is "
        "allowed). "
        "Reports of alice tell no errors, so only the tolerance counts for those."
    )
    assert (found.suite, found.suite_digest) == ("text", SUITE.digest())
    assert found.relative_norm == 0.01
    (one,) = found.evaluators
    assert (one.base, one.candidate) == pytest.approx((75, 74.9))
    assert one.difference == pytest.approx(-0.1)
    assert one.losses == {"a": pytest.approx(-0.6), "b": pytest.approx(0.8)}
    assert (one.allowed_loss, one.standard_error) == (0.5, None)
    assert one.negative_flips is None


def test_a_loss_beyond_the_tolerance_fails() -> None:
    found = _by_alice(gate(tolerance=0.5), report({"a": 79, "b": 69.8}))
    assert found.passed is False
    assert found.reason.startswith(
        "By alice's measurement the mean score lost 0.60 points (0.50 are allowed). "
    )


def test_a_loss_of_just_the_tolerance_passes() -> None:
    base, candidate = report({"a": 70.4, "b": 70.4}), report({"a": 70.1, "b": 70.1})
    assert 70.4 - 70.1 > 0.3
    found = _decided(gate(tolerance=0.3), {"alice": base}, {"alice": candidate})
    assert found.passed is True


def test_measured_noise_is_allowed_on_top() -> None:
    errors = {"a": 1.5, "b": 2.0}
    base, candidate = report({"a": 80, "b": 70}, errors), report({"a": 78.5, "b": 68.5}, errors)
    # sqrt(2 * 1.5^2 + 2 * 2^2) / 2 is 1.77.
    found = _decided(gate(), {"alice": base}, {"alice": candidate})
    assert found.passed is True
    (one,) = found.evaluators
    assert one.standard_error == pytest.approx(12.5**0.5 / 2)
    assert one.standard_errors == pytest.approx({"a": 4.5**0.5, "b": 8**0.5})
    assert "tell no errors" not in found.reason
    assert _decided(gate(noise=0.5), {"alice": base}, {"alice": candidate}).passed is False
    assert _decided(gate(noise=0), {"alice": base}, {"alice": candidate}).passed is False


def test_a_candidate_does_not_excuse_its_loss_by_its_own_spread() -> None:
    policy = gate(max_dataset_loss=1.0)
    base = report({"a": 90, "b": 90}, {"a": 1.0, "b": 1.0}, {"a": [90, 90], "b": [90, 90]})
    for low, error in ((10, 40.0), (80, 5.0)):
        mean = (low + 90) / 2
        candidate = report(
            {"a": mean, "b": 90}, {"a": error, "b": 1.0}, {"a": [low, 90], "b": [90, 90]}
        )
        found = _decided(policy, {"eva": base}, {"eva": candidate})
        assert found.passed is False
        assert found.evaluators[0].allowed_losses["a"] < 2.5


@pytest.mark.parametrize("metric", ["accuracy", "macro F1"])
def test_noise_is_allowed_up_to_a_limit(metric: str) -> None:
    claimed = {"a": 100.0, "b": 100.0}
    base, known = report({"a": 80, "b": 70}, claimed), suite("a", "b", metric=metric)

    def passes(loss: float, **limits: float) -> bool | None:
        candidate = report({"a": 80 - loss, "b": 70 - loss}, claimed)
        found = Measurements(known, {"eva": base}, {"eva": candidate})
        return decide(gate(noise=10, **limits), 0.01, found).passed

    assert passes(2.9) is True
    assert passes(3.1) is False
    assert passes(1.1, max_noise=1.0) is False
    assert passes(3.9, max_noise=100, max_dataset_loss=1.0) is True
    assert passes(3.1, max_dataset_loss=0.0) is False


def test_no_data_set_may_lose_too_much() -> None:
    policy = gate(max_dataset_loss=2.0)
    assert _by_alice(policy, report({"a": 78, "b": 75})).passed is True
    found = _by_alice(policy, report({"a": 77.5, "b": 75}))
    assert found.passed is False
    assert "measurement 'a' lost 2.50 points (2.00 are allowed)." in found.reason
    # Beside its own noise.
    noisy = report({"a": 77.5, "b": 75}, {"a": 0.6})
    assert _by_alice(policy, noisy).passed is True


def test_negative_flips_are_limited() -> None:
    policy = gate(max_negative_flips=2.0)
    scores = {"a": 81.0, "b": 71.0}
    assert _by_alice(policy, report(scores, flips={"a": 1, "b": 3})).passed is True
    found = _by_alice(policy, report(scores, flips={"a": 1, "b": 4}))
    assert found.passed is False
    assert found.evaluators[0].negative_flips == 2.5
    assert "2.50 percent of the test examples turned from right to wrong" in found.reason
    # Whoever tells them of one data set only does not count.
    found = _by_alice(policy, report(scores, flips={"a": 1}))
    assert found.passed is None
    assert "alice has told no negative flips of 'b'" in found.reason


def test_flips_where_no_example_is_right_or_wrong_are_a_policy_that_nothing_passes() -> None:
    measured = Measurements(suite("a", "b", task="regression"), {"x": BASE}, {"x": BASE})
    found = decide(gate(max_negative_flips=2.0), 0.0, measured)
    assert found.passed is False
    assert "negative flips are not known" in found.reason


def test_a_report_that_lacks_a_data_set_does_not_count_and_is_named() -> None:
    found = _by_alice(gate(), report({"a": 99}))
    assert found.passed is None
    assert found.evaluators == []
    assert found.reason == (
        "Waits for evaluations by the suite 'text': 0 of 1 evaluators have measured all that is "
        "compared; alice has no score of the candidate on 'b'."
    )
    found = _decided(gate(), {"alice": report({"b": 1})}, {"alice": BASE})
    assert "alice has no score of the base on 'a'" in found.reason
    # Nor one that lacks what only the base's report has.
    more = report({"a": 80, "b": 70, "c": 60})
    found = _decided(gate(), {"alice": more}, {"alice": BASE})
    assert "alice has no score of the candidate on 'c'" in found.reason


def test_what_is_no_number_is_no_score() -> None:
    broken = BASE.model_copy(update={"scores": {"a": 80.0, "b": float("nan")}})
    assert _by_alice(gate(), broken).passed is None


def test_whoever_has_measured_only_one_of_the_two_is_waited_for() -> None:
    found = _decided(gate(), {"alice": BASE}, {"bob": BASE})
    assert found.passed is None
    assert "alice has not measured the candidate; bob has not measured the base." in found.reason
    many = {f"e{place}": BASE for place in range(9)}
    assert _decided(gate(), many, {}).reason.endswith(
        "e4 has not measured the candidate; and others."
    )


def test_a_suite_that_nobody_knows_is_waited_for() -> None:
    found = decide(gate(), 0.0, Measurements(None, {"alice": BASE}, {"alice": BASE}))
    assert found.passed is None
    assert "the suite 'text' is not registered" in found.reason
    assert decide(gate(), 0.0).passed is None


@pytest.mark.parametrize(
    ("good", "bad", "passed"), [(1, 0, True), (2, 1, True), (1, 1, False), (1, 2, False)]
)
def test_more_than_half_of_the_evaluators_decide(good: int, bad: int, passed: bool) -> None:
    names = [f"e{place}" for place in range(good + bad)]
    worse = report({"a": 70, "b": 70})
    candidate = {name: BASE if place < good else worse for place, name in enumerate(names)}
    found = _decided(gate(), dict.fromkeys(names, BASE), candidate)
    assert found.passed is passed
    if len(names) > 1:
        assert found.reason.startswith(f"{good} of {good + bad} evaluators let it pass")


def test_enough_evaluators_have_to_measure_both() -> None:
    two = gate(min_evaluators=2)
    found = _decided(two, {"alice": BASE, "bob": BASE}, {"alice": BASE})
    assert found.passed is None
    assert "1 of 2 evaluators have measured all that is compared" in found.reason
    assert [one.evaluator for one in found.evaluators] == ["alice"]
    both = {"alice": BASE, "bob": BASE}
    assert _decided(two, both, both).passed is True


@pytest.mark.parametrize(("way", "passed"), [("wait", None), ("reject", False), ("publish", True)])
def test_when_time_is_up_the_policy_says_what_becomes_of_it(way: str, passed: bool | None) -> None:
    policy = gate(on_timeout=way)
    found = _decided(policy, {"alice": BASE}, {}, timed_out=True)
    assert found.passed is passed
    assert found.reason.startswith("The time for evaluations is up, and the policy ")
    assert found.reason.endswith("; alice has not measured the candidate.")
    assert _decided(policy, {"alice": BASE}, {}).passed is None
    # Whoever has measured in time is heard.
    measured = {"alice": report({"a": 1, "b": 1})}
    assert _decided(policy, {"alice": BASE}, measured, timed_out=True).passed is False


def test_when_time_is_up_those_that_have_measured_are_heard() -> None:
    policy = gate(on_timeout="publish", min_evaluators=2)
    worse = {"alice": report({"a": 70, "b": 70})}
    assert _decided(policy, {"alice": BASE}, worse).passed is None
    found = _decided(policy, {"alice": BASE}, worse, timed_out=True)
    assert found.passed is False
    assert found.reason.endswith("The time is up, and 2 evaluators were to measure it.")


@pytest.mark.parametrize(("way", "passed"), [("wait", None), ("reject", False), ("publish", True)])
def test_when_time_is_up_too_few_do_not_decide_but_that_it_fails(
    way: str, passed: bool | None
) -> None:
    policy = gate(on_timeout=way, min_evaluators=3)
    found = _decided(policy, {"alice": BASE}, {"alice": BASE}, timed_out=True)
    assert found.passed is passed
    assert "1 of 3 evaluators have measured all that is compared" in found.reason
    assert [one.evaluator for one in found.evaluators] == ["alice"]
    worse = {"alice": report({"a": 70, "b": 70})}
    assert _decided(policy, {"alice": BASE}, worse, timed_out=True).passed is False


scores = st.floats(0, 100).map(lambda score: round(score, 2))
errors = st.none() | st.floats(0, 5)


@st.composite
def reports(draw: st.DrawFn) -> EvaluationReport:
    """A report of both data sets, with any of what a report may tell."""
    found = {"a": draw(scores), "b": draw(scores)}
    told = {name: error for name in found if (error := draw(errors)) is not None}
    seeds = draw(st.integers(0, 3))
    by_seed = {name: [draw(scores) for _ in range(seeds)] for name in found} if seeds else {}
    return report(found, told, by_seed, draw(st.sampled_from([{}, {"a": 1.0, "b": 2.0}])))


gates = st.builds(
    lambda tolerance, noise, loss, fewest, way: gate(
        tolerance=tolerance,
        noise=noise,
        max_dataset_loss=loss,
        min_evaluators=fewest,
        on_timeout=way,
    ),
    st.floats(0, 5),
    st.floats(0, 3),
    st.none() | st.floats(0, 5),
    st.integers(1, 3),
    st.sampled_from(["publish", "reject", "wait"]),
)


@given(gates, reports())
def test_the_base_itself_passes(policy: Gate, same: EvaluationReport) -> None:
    names = ["x", "y", "z"]
    found = _decided(policy, dict.fromkeys(names, same), dict.fromkeys(names, same))
    assert found.passed is True


@given(gates, reports(), reports())
def test_a_loss_larger_than_allowed_fails_and_no_other_where_data_sets_are_not_limited(
    policy: Gate, base: EvaluationReport, candidate: EvaluationReport
) -> None:
    policy = policy.model_copy(update={"max_dataset_loss": None, "min_evaluators": 1})
    found = _decided(policy, {"x": base}, {"x": candidate})
    (one,) = found.evaluators
    if abs(one.difference + one.allowed_loss) > 1e-6:
        assert found.passed is (-one.difference <= one.allowed_loss)
    assert one.allowed_loss == pytest.approx(
        policy.tolerance + min(policy.noise * (one.standard_error or 0), policy.max_noise)
    )


@given(gates, st.lists(st.tuples(reports(), reports()), max_size=4), st.booleans(), st.integers())
def test_the_order_of_evaluators_and_data_sets_changes_nothing(
    policy: Gate, pairs: list[tuple[EvaluationReport, EvaluationReport]], late: bool, seed: int
) -> None:
    base = {f"e{place}": pair[0] for place, pair in enumerate(pairs)}
    candidate = {f"e{place}": pair[1] for place, pair in enumerate(pairs)}
    names = [*base]
    Random(seed).shuffle(names)

    def turned(one: EvaluationReport) -> EvaluationReport:
        return one.model_copy(update={"scores": dict(reversed(one.scores.items()))})

    first = _decided(policy, base, candidate, timed_out=late)
    again = _decided(
        policy,
        {name: turned(base[name]) for name in names},
        {name: turned(candidate[name]) for name in reversed(names)},
        timed_out=late,
    )
    assert first == again


@given(gates, reports(), reports(), st.floats(0, 10))
def test_higher_scores_are_never_worse(
    policy: Gate, base: EvaluationReport, candidate: EvaluationReport, more: float
) -> None:
    # Flips would tell another error.
    plain = candidate.model_copy(update={"negative_flips": {}})
    higher = plain.model_copy(
        update={"scores": {name: score + more for name, score in plain.scores.items()}}
    )
    names = ["x", "y", "z"]
    if _decided(policy, dict.fromkeys(names, base), dict.fromkeys(names, plain)).passed:
        found = _decided(policy, dict.fromkeys(names, base), dict.fromkeys(names, higher))
        assert found.passed is True
