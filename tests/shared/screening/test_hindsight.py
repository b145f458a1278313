"""A round beside itself: who sticks out is found whoever came first, and no minority says who."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.schemas.contributions import worst
from coldfusion_shared.screening import discover
from coldfusion_shared.screening.hindsight import FEWEST, Member, in_hindsight
from coldfusion_shared.screening.history import Past
from coldfusion_shared.screening.sketch import SIZE, Sketch
from tests.shared.screening.known import TENSOR_NORMS, concluded, direction, measures, other

NAMES = list(TENSOR_NORMS)


def member(
    number: int,
    sketch: Sketch | None = None,
    *,
    contributor: str | None = None,
    released: bool = False,
    **changes: Any,
) -> Member:
    """Return one of the round, at right angles to all others, with `changes` of its measures."""
    own = direction(*[0.0] * number, 1.0) if sketch is None else sketch
    found = measures(digest=f"{number:064x}", sketch=own, **changes)
    told = other(
        number,
        relative_norm=found.relative_norm,
        tensor_norms=found.tensor_norms,
        digest=found.digest,
        sketch=own,
        contributor=contributor or f"contributor {number}",
    )
    return Member(told, found, released)


def honest(count: int) -> list[Member]:
    return [member(number) for number in range(count)]


def against(members: Sequence[Member], number: int, **changes: Any) -> Member:
    """Return one that sends the opposite of the others' mean, and a little of its own."""
    mean = -np.mean([one.measures.sketch.values for one in members], axis=0)
    mean[100 + number] = 0.1 * np.linalg.norm(mean)
    return member(number, Sketch(mean.astype(np.float32)), **changes)


def noisy(number: int, factor: float = 32.0) -> Member:
    """Return one of which a layer moved far more than the rest suggests."""
    small = {name: norm / 10 for name, norm in TENSOR_NORMS.items()}
    return member(number, tensor_norms={**small, NAMES[1]: small[NAMES[1]] * factor})


def held(members: Sequence[Member], **changes: Any) -> set[str]:
    found = in_hindsight(members, **changes)
    return {name for name, told in found.items() if worst(told) == "quarantine"}


def ids(members: Sequence[Member]) -> set[str]:
    return {one.other.id for one in members}


@pytest.mark.parametrize(("good", "bad"), [(5, 1), (6, 2), (5, 3), (62, 37)])
def test_those_who_came_first_are_found_when_all_are_there(good: int, bad: int) -> None:
    others = honest(good)
    attackers = [against(others, good + place) for place in range(bad)]
    for arrived in ([*attackers, *others], [*others, *attackers]):
        found = in_hindsight(arrived)
        assert set(found) == ids(attackers)
        told = {one.check: one for one in found[attackers[0].other.id]}
        assert told["direction"].verdict == "quarantine"
        assert set(told) == {name for name in discover() if discover()[name].hindsight}


def test_who_is_over_a_limit_for_an_attacker_alone_is_looked_at_again() -> None:
    # Seven at right angles, but for one that lies a little against three.
    others = honest(8)
    values = others[7].measures.sketch.values.copy()
    values[:3] = -0.06
    near = [*others[:7], member(7, Sketch(values))]
    attackers = [against(others, 20 + place) for place in range(4)]
    assert held([*near, *attackers]) == ids(attackers)
    assert held(near) == set()


def test_a_noisy_layer_is_found_without_a_history() -> None:
    round_ = [noisy(9), noisy(10), *honest(6)]
    assert held(round_) == {"c9", "c10"}
    # With fewer than `others` to compare with there has to be a history.
    few = [noisy(9), *honest(4)]
    assert held(few) == set()
    assert held(few, history=[other(number, round=0) for number in range(20, 28)]) == {"c9"}


def test_few_say_nothing_and_nor_does_one_who_sends_many() -> None:
    others = honest(FEWEST - 2)
    assert held([*others, against(others, 9)]) == set()
    many = [member(n, contributor="the same") for n in range(20, 40)]
    assert held([*others, against(others, 9), *many]) == {"c9"}
    # As many of the others' opposites as one likes are one vote.
    mine = [against(honest(6), n, contributor="the same") for n in range(50, 80)]
    assert held([*honest(6), *mine]) == ids(mine)


def test_where_there_is_no_majority_nobody_is_held_back() -> None:
    assert held([*honest(7), *(noisy(n, 24.5 + n) for n in range(7, 14))]) == set()
    assert held([*honest(8), *(noisy(n, 24.5 + n) for n in range(8, 14))]) == {
        f"c{n}" for n in range(8, 14)
    }


def test_whom_a_maintainer_let_in_is_not_judged_and_counts() -> None:
    let_in = against(honest(6), 9, released=True)
    assert in_hindsight([*honest(6), let_in]) == {}
    assert held([*honest(6), let_in, against(honest(6), 10)]) == {"c10"}


def test_who_was_first_stays_first() -> None:
    copies = [member(20 + n, honest(1)[0].measures.sketch) for n in range(3)]
    assert in_hindsight([*honest(6), *copies]) == {}
    assert not discover()["copies"].hindsight


@pytest.mark.parametrize(
    ("action", "verdict"),
    [("reject", "quarantine"), ("quarantine", "quarantine"), ("warn", "warn")],
)
def test_nobody_is_rejected_by_those_who_came_later(action: str, verdict: str) -> None:
    round_ = [*honest(6), noisy(9)]
    found = in_hindsight(round_, screening={"tensor_outliers": {"action": action}})
    assert [worst(told) for told in found.values()] == [verdict]
    assert in_hindsight(round_, screening={"tensor_outliers": {"enabled": False}}) == {}
    with pytest.raises(InvalidRequest):
        in_hindsight(round_, screening={"tensor_outliers": {"action": "applaud"}})


@st.composite
def rounds(draw: st.DrawFn) -> tuple[list[Member], list[Member]]:
    """Return good ones that are much alike, and up to three of eight of any others."""
    good = draw(st.integers(4, 12))
    bad = draw(st.integers(0, 3 * good // 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    others = []
    for number in range(good):
        values = np.zeros(SIZE, np.float32)
        values[:20] = rng.normal(0.05, 0.01, 20)
        values[20 + number] = 1
        norms = {
            name: norm * rng.uniform(0.3, 3)
            for name, norm in TENSOR_NORMS.items()
            # Some train less than others do.
            if name != NAMES[0] or rng.random() < 0.6
        }
        norm = float(rng.uniform(0.2, 5))
        others.append(member(number, Sketch(values), norm=norm, tensor_norms=norms))
    of_theirs = np.array([one.measures.sketch.values for one in others])
    attackers = []
    for number in range(good, good + bad):
        parts = draw(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=good, max_size=good))
        values = np.array(parts, np.float32) @ of_theirs
        values[100 + number] = draw(st.sampled_from([1e-3, 0.1, 1.0]))
        norms = {
            name: 10.0 ** draw(st.integers(-9, 0))
            for name in draw(st.sets(st.sampled_from(NAMES), min_size=1))
        }
        norm = 10.0 ** draw(st.integers(-6, 3))
        attackers.append(member(number, Sketch(values), norm=norm, tensor_norms=norms))
    return others, attackers


@settings(max_examples=30)
@given(rounds(), st.randoms(use_true_random=False))
def test_no_minority_has_a_good_one_held_back(
    given_: tuple[list[Member], list[Member]], rng: random.Random
) -> None:
    good, bad = given_
    everybody = [*good, *bad]
    found = in_hindsight(everybody)
    assert not set(found) & ids(good)
    # Whoever came first.
    rng.shuffle(everybody)
    assert in_hindsight(everybody) == found
    # Once more, and nothing happens.
    staying = [one for one in everybody if one.other.id not in found]
    assert in_hindsight(staying) == {}


def test_on_arrival_the_rounds_first_do_not_say_what_is_usual() -> None:
    others = honest(3)
    late, crowd = others[0], [against(others, 20 + n).other for n in range(9)]
    arriving = Past("me", 1, "v0", others=crowd)
    there = replace(arriving, complete=True)
    assert concluded("direction", late.measures, arriving).verdict == "pass"
    assert concluded("direction", late.measures, there).verdict == "quarantine"
    small = [replace(one, relative_norm=1e-9, round=1) for one in crowd]
    earlier = [replace(one, round=0) for one in small]
    for told, verdict in ((small, "pass"), (earlier, "quarantine")):
        assert concluded("norm", late.measures, replace(arriving, others=told)).verdict == verdict
