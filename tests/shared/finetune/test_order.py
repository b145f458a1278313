from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.finetune.collate import Reproducible
from coldfusion_shared.finetune.order import EpochOrder, length_of


@given(st.lists(st.integers(1, 9), max_size=60), st.integers(1, 8), st.booleans())
def test_every_example_comes_once(lengths: list[int], step: int, grouped: bool) -> None:
    order = EpochOrder(lengths, step, seed=1, grouped=grouped)
    assert sorted(order) == list(range(len(lengths))) and len(order) == len(lengths)


def test_an_epoch_has_its_own_order_whatever_torch_has_drawn() -> None:
    order = EpochOrder(list(range(40)), 4, seed=1, grouped=True)
    first = list(order)
    torch.rand(7)
    assert list(order) == first
    order.set_epoch(1)
    assert list(order) != first
    assert list(EpochOrder(list(range(40)), 4, seed=2, grouped=True)) != first


def test_examples_of_like_length_share_a_step_and_the_longest_come_first() -> None:
    lengths = [1 + i % 10 for i in range(200)]
    order = list(EpochOrder(lengths, 10, seed=1, grouped=True))
    steps = [[lengths[i] for i in order[start : start + 10]] for start in range(0, 200, 10)]
    assert all(len(set(step)) == 1 for step in steps)
    assert steps[0][0] == 10
    # Not sorted: a training must not go from long to short examples.
    assert [step[0] for step in steps] != sorted((step[0] for step in steps), reverse=True)


def test_the_length_of_several_texts_is_that_of_the_longest() -> None:
    assert length_of({"input_ids": [1, 2, 3]}) == 3
    assert length_of({"input_ids": [[1], [1, 2]]}) == 2
    assert length_of({"input_ids": []}) == 0


def test_the_same_examples_are_masked_alike_in_one_epoch() -> None:
    collator = Reproducible(lambda examples: torch.rand(8), seed=1)
    examples = [{"input_ids": [1, 2]}]
    before = torch.random.get_rng_state()
    first = collator(examples)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(collator(examples), first)
    assert not torch.equal(collator([{"input_ids": [3]}]), first)
    collator.epoch = 1
    assert not torch.equal(collator(examples), first)
