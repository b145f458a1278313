"""Which contributions a round takes, and what it says of the others."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.rounds.closing import choose
from coldfusion_shared.rounds.limits import Limit, Waiting, limits
from coldfusion_shared.schemas.models import Policy
from tests.shared.rounds.accepted import (
    KINDS,
    crossing,
    largest_of_all,
    limit_sets,
    nested,
    of,
    policies,
    waiting,
    within,
)


def _policy(**given: object) -> Policy:
    return Policy.model_validate({"by_hand": True, **given})


def _chosen(policy: Policy, found: list[Waiting]) -> list[Waiting]:
    ids = set(choose(policy, found).chosen)
    return [one for one in found if one.id in ids]


def test_without_limits_all_are_taken_in_the_order_of_acceptance() -> None:
    found = waiting("alice", "bob", "alice")
    assert choose(_policy(), found[::-1]).chosen == ["c0", "c1", "c2"]
    assert choose(_policy(), []).chosen == []


def test_contributors_take_turns_and_the_oldest_go_first() -> None:
    choice = choose(_policy(max_contributions=4), waiting(*of("alice", 5), "bob", "carol", "bob"))
    assert choice.chosen == ["c0", "c1", "c5", "c6"]
    assert choice.kept["c2"] == "The round has 4 contributions already, the most that it takes."


def test_a_full_round_has_something_that_counts_where_there_is_any() -> None:
    policy = _policy(max_contributions=2, contributor_weights={"alice": 0, "bob": 0})
    choice = choose(policy, waiting("alice", "bob", "alice", "carol"))
    assert choice.chosen == ["c0", "c3"]
    assert list(choice.kept) == ["c1", "c2"]
    assert choose(policy, waiting("alice", "bob", "alice")).chosen == ["c0", "c1"]


@given(policies(*KINDS), nested(10), st.sets(st.sampled_from("abcd"), min_size=1))
def test_what_weighs_nothing_changes_the_number_of_none(
    policy: Policy, found: list[Waiting], weightless: set[str]
) -> None:
    weights = {"contributor_weights": dict.fromkeys(weightless, 0)}
    chosen = _chosen(policy.model_copy(update=weights), found)
    assert len(chosen) == len(_chosen(policy, found))
    counts = {one.contributor for one in found} - weightless
    assert not chosen or not counts or counts & {one.contributor for one in chosen}


def test_a_number_for_each_contributor() -> None:
    choice = choose(_policy(max_per_contributor=3), waiting(*of("alice", 5), "bob"))
    assert choice.chosen == ["c0", "c1", "c2", "c5"]
    assert choice.kept == dict.fromkeys(
        ["c3", "c4"],
        "alice has 3 contributions in this round already, the most that one contributor may have.",
    )


def test_a_share_is_strict_so_a_fifth_needs_five_contributors() -> None:
    policy = _policy(max_share_per_contributor=0.2)
    four = waiting("alice", "bob", "carol", "dan", "alice")
    choice = choose(policy, four)
    assert choice.chosen == []
    assert choice.kept["c0"] == (
        "One contributor may have 20 percent of a round at most, so that a round needs "
        "contributions of 5 contributors at least."
    )
    five = waiting("alice", "bob", "carol", "dan", "alice", "eve")
    choice = choose(policy, five)
    assert choice.chosen == ["c0", "c1", "c2", "c3", "c5"]
    assert choice.kept["c4"] == (
        "alice has 1 of the 5 contributions in this round, and one contributor may have 20 percent "
        "at most."
    )


def test_a_smaller_round_may_be_impossible_and_a_larger_one_possible() -> None:
    policy = _policy(max_share_per_contributor=1 / 3)
    assert len(choose(policy, waiting(*of("a", 2), *of("b", 2), *of("c", 2))).chosen) == 6
    # Of 5 one may have 1, of 3 likewise.
    assert choose(policy, waiting(*of("a", 2), *of("b", 2), "c")).chosen == ["c0", "c2", "c4"]


def test_shares_are_decimal_numbers() -> None:
    assert Limit("task", None, 0.29).most(100) == 29
    assert Limit("task", None, 0.07).most(100) == 7
    assert Limit("task", None, 0.33).most(3) == 0
    for size in range(1, 200):
        limit = Limit("task", None, 1 / size)
        assert (limit.most(size), limit.fewest()) == (1, size)


def test_what_names_no_data_set_counts_as_one() -> None:
    choice = choose(_policy(max_per_dataset=1), waiting("alice", "bob", "carol sst2", "dan sst2"))
    assert choice.chosen == ["c0", "c2"]
    assert choice.kept == {
        "c1": "Undeclared data sets, which count as one, have 1 contribution in this round "
        "already, the most that one data set may have.",
        "c3": "The data set 'sst2' has 1 contribution in this round already, the most that one "
        "data set may have.",
    }


def test_one_that_was_taken_makes_room_for_more() -> None:
    found = waiting("alice sst2", "alice trec", "bob sst2")
    policy = _policy(max_per_dataset=1, max_per_contributor=1)
    assert choose(policy, found).chosen == ["c1", "c2"]
    chain = waiting("a x", "a y", "b y", "b z", "c z", "c w", "d x")
    assert choose(policy, chain).chosen == ["c1", "c3", "c5", "c6"]


def test_a_contributor_that_can_give_way_does_so_for_one_that_cannot() -> None:
    found = waiting(*["alice sst2"] * 4, "alice trec", "bob sst2")
    choice = choose(_policy(max_per_dataset=2), found)
    assert choice.chosen == ["c0", "c4", "c5"]


def test_the_order_in_which_they_are_given_changes_nothing() -> None:
    found = waiting("a x", "b x", "a y", "c y", "b y", "c x", "d x", "a x")
    policy = _policy(max_per_dataset=2, max_share_per_contributor=0.5)
    again = found.copy()
    Random(1).shuffle(again)
    assert choose(policy, again) == choose(policy, found)


limited = limit_sets(*KINDS).map(lambda found: _policy(max_contributions=7, **found))


@given(limited, crossing(12))
def test_no_limit_is_missed_and_all_others_are_told_why(
    policy: Policy, found: list[Waiting]
) -> None:
    choice = choose(policy, found)
    chosen = [one for one in found if one.id in choice.chosen]
    assert [one.id for one in chosen] == choice.chosen
    assert within(chosen, limits(policy))
    assert len(chosen) <= 7
    assert choice.kept.keys() == {one.id for one in found} - set(choice.chosen)
    assert all(sentence.endswith(".") for sentence in choice.kept.values())


@given(limited, nested(8))
def test_the_choice_is_the_largest(policy: Policy, found: list[Waiting]) -> None:
    assert len(choose(policy, found).chosen) == largest_of_all(policy, found)


@pytest.mark.parametrize("kind", KINDS)
@given(st.data(), crossing(8))
def test_with_one_kind_of_limit_it_is_the_largest_whatever_crosses(
    kind: str, data: st.DataObject, found: list[Waiting]
) -> None:
    policy = _policy(**data.draw(limit_sets(kind)))
    assert len(choose(policy, found).chosen) == largest_of_all(policy, found)


@given(limited, nested(10))
def test_nobody_has_two_more_than_one_who_waits_and_could_take_the_place(
    policy: Policy, found: list[Waiting]
) -> None:
    chosen = _chosen(policy, found)
    counts = Counter(one.contributor for one in chosen)
    for one in found:
        for other in chosen:
            swapped = [*(kept for kept in chosen if kept is not other), one]
            if one not in chosen and within(swapped, limits(policy)):
                assert counts[other.contributor] - counts[one.contributor] <= 1


@given(policies(*KINDS), nested(8))
def test_among_the_oldest_alike_the_older_one_is_taken(
    policy: Policy, found: list[Waiting]
) -> None:
    chosen = _chosen(policy, found)
    for one in found:
        if one not in chosen:
            alike = (one.contributor, one.dataset, one.task)
            newer = [other for other in chosen if other.position > one.position]
            assert alike not in [(other.contributor, other.dataset, other.task) for other in newer]


def test_a_thousand_that_wait_are_many_but_no_matter() -> None:
    random = Random(0)
    found = [
        Waiting(f"c{place}", f"u{random.randrange(90)}", f"d{random.randrange(40)}", None, place)
        for place in range(1000)
    ]
    policy = _policy(max_share_per_contributor=0.012, max_share_per_dataset=0.03, max_per_dataset=9)
    chosen = _chosen(policy, found)
    assert within(chosen, limits(policy))
    assert len(chosen) == 360
