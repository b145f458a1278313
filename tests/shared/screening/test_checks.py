"""Checks of numbers: what each lets pass, what it stops, and what its parameters change."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import InvalidRequest, UnknownName
from coldfusion_shared.screening import check_parameters, discover, known_parameters
from coldfusion_shared.screening.check import Tunable
from coldfusion_shared.screening.history import Other
from coldfusion_shared.screening.measures import Measures
from tests.shared.screening.known import (
    TENSOR_NORMS,
    concluded,
    direction,
    measures,
    other,
    past,
)

MANY = [other(number) for number in range(12)]
TUNABLE = [name for name in discover() if issubclass(discover()[name].parameters_type, Tunable)]
COMPARING = ["copies", "direction", "norm"]

# What each tunable check flags.
GUILTY: dict[str, Measures] = {
    "copies": measures(sketch=MANY[3].sketch),
    "direction": measures(sketch=direction(-1.0)),
    "magnitude": measures(largest=1e4),
    "norm": measures(norm=1000.0),
    "sparsity": measures(changed_share=1e-7),
    "tensor_outliers": measures(tensor_norms={**TENSOR_NORMS, "layer.1.weight": 1.4}),
    "unrelated": measures(cosine_to_base=0.01),
}


@pytest.mark.parametrize("name", sorted(discover()))
def test_an_honest_update_passes_with_a_history_and_without(name: str) -> None:
    for history in (past([]), past(MANY)):
        finding = concluded(name, measures(), history)
        assert finding.verdict == "pass"
        assert finding.check == name
        assert finding.message


@pytest.mark.parametrize("name", sorted(GUILTY))
@pytest.mark.parametrize("action", ["warn", "quarantine", "reject"])
def test_what_becomes_of_the_guilty_is_the_models_choice(name: str, action: str) -> None:
    finding = concluded(name, GUILTY[name], past(MANY), parameters={"action": action})
    assert finding.verdict == action
    assert finding.measured is not None
    assert finding.limit is not None


def test_every_check_that_compares_numbers_is_shown_a_guilty_one() -> None:
    of_values = {"constant", "tied"}
    assert set(TUNABLE) == {*GUILTY, *of_values}


@pytest.mark.parametrize("name", sorted(GUILTY))
def test_no_more_digits_are_told_than_people_need(name: str) -> None:
    measured = concluded(name, GUILTY[name], past(MANY)).measured
    assert measured is not None
    assert measured == float(f"{measured:.4g}")


@pytest.mark.parametrize("name", COMPARING)
def test_nothing_is_held_against_the_first(name: str) -> None:
    finding = concluded(name, GUILTY[name], past([]))
    assert finding.verdict == "pass"
    assert finding.message == "nothing to compare with yet"


@pytest.mark.parametrize("name", sorted(GUILTY))
def test_no_sentence_names_another_contributor_or_contribution(name: str) -> None:
    message = concluded(name, GUILTY[name], past(MANY)).message
    assert "contributor" not in message
    assert not any(one.id in message.split() for one in MANY)


class TestMagnitude:
    """Absolute limits on values and norm."""

    @pytest.mark.parametrize("change", [{"largest": 0.51}, {"norm": 31.0}])
    def test_beyond_a_limit_a_person_looks(self, change: dict[str, float]) -> None:
        assert concluded("magnitude", measures(**change)).verdict == "quarantine"

    @given(st.floats(0, 0.5), st.floats(0, 30))
    def test_all_within_passes(self, largest: float, norm: float) -> None:
        assert concluded("magnitude", measures(largest=largest, norm=norm)).verdict == "pass"

    def test_a_base_of_zeros_is_no_reason(self) -> None:
        assert concluded("magnitude", measures(base_norm=0.0)).verdict == "pass"


class TestCopies:
    """The same again, by whom, and at what length."""

    def test_ones_own_again_is_rejected_whatever_the_action(self) -> None:
        mine = other(3, contributor="me")
        finding = concluded(
            "copies", measures(sketch=mine.sketch), past([mine]), parameters={"action": "warn"}
        )
        assert finding.verdict == "reject"
        assert "you contributed this already, as c3" in finding.message

    def test_anothers_waits_for_a_maintainer(self) -> None:
        finding = concluded("copies", measures(sketch=MANY[3].sketch), past(MANY))
        assert finding.verdict == "quarantine"

    @pytest.mark.parametrize("factor", [1e-3, 0.5, 20.0, -1.0])
    def test_a_scaled_copy_is_a_copy(self, factor: float) -> None:
        copied = direction(factor * 0.3, factor * 1.0)
        assert concluded("copies", measures(sketch=copied), past(MANY)).verdict == "quarantine"

    def test_the_same_digest_is_enough(self) -> None:
        known = other(1, digest="a" * 64, sketch=None)
        assert concluded("copies", measures(), past([known])).verdict == "quarantine"

    def test_one_in_quarantine_is_compared_with(self) -> None:
        waiting = other(1, state=ContributionState.QUARANTINED)
        finding = concluded("copies", measures(sketch=waiting.sketch), past([waiting]))
        assert finding.verdict == "quarantine"

    @given(st.floats(0.05, 1))
    def test_what_is_only_alike_passes(self, apart: float) -> None:
        alike = direction(0.3, 1.0, apart)
        found = concluded("copies", measures(sketch=alike), past([MANY[0]]))
        assert found.verdict == "pass"
        assert found.measured is not None
        assert found.measured < 0.999


class TestNorm:
    """Beside the median, on a logarithmic scale."""

    @given(st.lists(st.floats(0.8, 1.25), min_size=8, max_size=30), st.randoms())
    def test_the_order_of_the_others_means_nothing(self, ratios: list[float], rng: Any) -> None:
        others = _of_norms([0.01 * ratio for ratio in ratios])
        shuffled = list(others)
        rng.shuffle(shuffled)
        found = measures(norm=3.0)
        assert concluded("norm", found, past(others)) == concluded("norm", found, past(shuffled))

    @given(
        st.lists(st.floats(0.9, 1.1), min_size=8, max_size=20),
        st.lists(st.floats(1e-3, 1e6), max_size=7),
    )
    def test_a_minority_cannot_open_the_door_to_a_giant(
        self, honest: list[float], hostile: list[float]
    ) -> None:
        assume(len(hostile) < len(honest))
        others = _of_norms([0.01 * ratio for ratio in [*honest, *hostile]])
        assert concluded("norm", measures(norm=1000.0), past(others)).verdict == "quarantine"

    @given(st.floats(0.011, 99))
    def test_within_the_factor_passes_however_alike_the_others_are(self, ratio: float) -> None:
        found = concluded("norm", measures(norm=ratio), past(_of_norms([0.01] * 9)))
        assert found.verdict == "pass"
        assert found.measured == pytest.approx(exp(abs(log(ratio))), rel=1e-3)

    def test_who_varies_much_allows_much(self) -> None:
        wide = _of_norms([1e-4 * 2**n for n in range(10)])
        assert concluded("norm", measures(norm=50.0), past(wide)).verdict == "pass"

    def test_one_far_too_short_is_flagged(self) -> None:
        finding = concluded("norm", measures(norm=1e-4), past(MANY))
        assert finding.verdict == "quarantine"
        assert "short" in finding.message

    def test_those_in_quarantine_are_no_measure(self) -> None:
        waiting = [other(n, state=ContributionState.QUARANTINED) for n in range(12)]
        assert concluded("norm", measures(norm=1000.0), past(waiting)).verdict == "pass"

    @pytest.mark.parametrize("rounds", [1, 4])
    def test_who_sends_much_says_no_more_than_others(self, rounds: int) -> None:
        flood = [
            other(100 + n, contributor="mallory", relative_norm=1e-9, round=1 + n % rounds)
            for n in range(40)
        ]
        found = concluded("norm", measures(), past([*flood, *MANY]))
        assert found.verdict == "pass"
        assert found.measured == pytest.approx(1.0)

    def test_one_contributor_alone_is_no_history(self) -> None:
        flood = [other(n, contributor="mallory", relative_norm=1e-9) for n in range(40)]
        assert concluded("norm", measures(), past(flood)).message == "nothing to compare with yet"

    def test_a_limit_beyond_all_numbers_is_one(self) -> None:
        wide = _of_norms([10.0**-n for n in range(10)])
        absurd = {"deviations": 1e300}
        assert concluded("norm", measures(), past(wide), parameters=absurd).verdict == "pass"

    def test_too_few_others_are_no_measure(self) -> None:
        assert concluded("norm", measures(norm=1000.0), past(MANY[:7])).verdict == "pass"
        asked = {"others": 7}
        found = concluded("norm", measures(norm=1000.0), past(MANY[:7]), parameters=asked)
        assert found.verdict == "quarantine"


def _of_norms(norms: Sequence[float]) -> list[Other]:
    return [other(number, relative_norm=norm) for number, norm in enumerate(norms)]


class TestSparsity:
    """The share of values that changed."""

    def test_a_sparse_encoding_may_change_less(self) -> None:
        few = measures(changed_share=5e-4)
        assert concluded("sparsity", few).verdict == "quarantine"
        assert concluded("sparsity", few, encoding="delta-sparse").verdict == "pass"

    @given(st.floats(0, 1), st.floats(0, 1))
    def test_the_limit_is_the_parameter(self, share: float, least: float) -> None:
        found = concluded(
            "sparsity", measures(changed_share=share), parameters={"least": float(least)}
        )
        assert (found.verdict == "pass") == (share >= least)


class TestTensorOutliers:
    """One tensor beside the rest, and beside the same one of others."""

    def test_a_tensor_replaced_by_noise_is_named(self) -> None:
        (name,) = concluded("tensor_outliers", GUILTY["tensor_outliers"]).tensors
        assert name == "layer.1.weight"

    def test_others_know_what_is_usual(self) -> None:
        far = measures(tensor_norms={**TENSOR_NORMS, "words.weight": 0.5})
        assert concluded("tensor_outliers", far).verdict == "pass"
        finding = concluded("tensor_outliers", far, past(MANY))
        assert finding.verdict == "quarantine"
        assert finding.tensors == ["words.weight"]

    @given(st.floats(1e-3, 20))
    def test_a_learning_rate_is_no_outlier(self, factor: float) -> None:
        scaled = {name: factor * norm for name, norm in TENSOR_NORMS.items()}
        finding = concluded("tensor_outliers", measures(tensor_norms=scaled), past(MANY))
        assert finding.verdict == "pass"
        assert finding.measured == pytest.approx(1.0)

    def test_what_the_others_never_changed_is_no_outlier(self) -> None:
        new = measures(tensor_norms={**TENSOR_NORMS, "pooler.weight": 0.9})
        assert concluded("tensor_outliers", new, past(MANY)).verdict == "pass"

    def test_an_update_of_nothing_passes_here(self) -> None:
        assert concluded("tensor_outliers", measures(tensor_norms={}), past(MANY)).verdict == "pass"


class TestDirection:
    """Against the round."""

    def test_only_the_same_round_counts(self) -> None:
        elsewhere = [other(n, round=2) for n in range(12)]
        assert concluded("direction", GUILTY["direction"], past(elsewhere)).verdict == "pass"

    def test_a_long_other_does_not_outvote_the_rest(self) -> None:
        giant = other(20, sketch=direction(-1e6))
        finding = concluded("direction", GUILTY["direction"], past([*MANY, giant]))
        assert finding.verdict == "quarantine"

    @given(st.floats(1e-3, 1e3))
    def test_length_means_nothing(self, factor: float) -> None:
        against = measures(sketch=direction(-factor))
        assert concluded("direction", against, past(MANY)).verdict == "quarantine"

    def test_what_is_at_right_angles_passes(self) -> None:
        sideways = measures(sketch=direction(*[0.0] * 100, 1.0))
        assert concluded("direction", sideways, past(MANY)).verdict == "pass"


class TestFrozen:
    """What was declared as not trained."""

    def test_a_change_to_it_is_rejected(self) -> None:
        finding = concluded("frozen", measures(), frozen=["layer.0", "words"])
        assert finding.verdict == "reject"
        assert finding.tensors == ["words.weight", "layer.0.weight"]

    def test_others_may_change(self) -> None:
        assert concluded("frozen", measures(), frozen=["layer.9"]).verdict == "pass"


class TestParameters:
    """What a policy may say of checks."""

    def test_all_checks_have_theirs(self) -> None:
        assert set(check_parameters({})) == set(discover())

    def test_an_unknown_check_is_refused_in_a_sentence(self) -> None:
        with pytest.raises(UnknownName, match="No screening check is named 'nrom'"):
            check_parameters({"nrom": {}})

    @pytest.mark.parametrize(
        ("given_in", "said"),
        [
            ({"norm": {"deviatons": 3}}, "there is no such parameter"),
            ({"norm": {"deviations": -1.0}}, "greater than 0"),
            ({"norm": {"action": "shrug"}}, "'action' of the screening check 'norm'"),
            ({"norm": {"enabled": 1}}, "'enabled'"),
            ({"norm": {"factor": float("inf")}}, "finite"),
            ({"norm": {"deviations": float("nan")}}, "'deviations'"),
            ({"norm": {"factor": 10**400}}, "'factor'"),
            ({"copies": {"cosine": 1.0}}, "less than 1"),
            ({"copies": {"cosine": 0.01}}, "greater than or equal to 0.5"),
            ({"finite": {"enabled": False}}, "there is no such parameter"),
            ({"schema": {"heads": "maybe"}}, "'heads'"),
        ],
    )
    def test_a_wrong_parameter_is_refused_in_a_sentence(
        self, given_in: dict[str, dict[str, Any]], said: str
    ) -> None:
        with pytest.raises(InvalidRequest, match=said):
            check_parameters(given_in)

    def test_an_older_client_leaves_out_what_it_does_not_know(self) -> None:
        newer: dict[str, dict[str, Any]] = {
            "norm": {"factor": 9.0},
            "copies": {"quantum": True},
            "taste": {"sweet": 1},
        }
        assert known_parameters(newer) == {"norm": {"factor": 9.0}}

    @pytest.mark.parametrize("name", sorted(discover()))
    def test_every_parameter_is_described(self, name: str) -> None:
        check = discover()[name]
        assert check.summary
        assert check.name == name
        assert all(field.description for field in check.parameters_type.model_fields.values())
