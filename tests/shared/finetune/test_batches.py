from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.finetune.batches import Batches, share_out


@pytest.mark.parametrize(
    ("batch", "accumulation", "processes", "expected"),
    [
        (16, 1, 1, (16, 1)),
        (16, 4, 1, (16, 4)),
        (16, 1, 8, (2, 1)),  # the processes share one step
        (16, 4, 8, (8, 1)),  # eight together need not accumulate
        (3, 1, 2, (2, 1)),  # 4 instead of 3: it cannot be shared evenly
        (4, 1, 8, (1, 1)),
    ],
)
def test_a_step_is_shared_out(
    batch: int, accumulation: int, processes: int, expected: tuple[int, int]
) -> None:
    shared = share_out(batch, accumulation, processes)
    assert (shared.size, shared.accumulation) == expected


@given(st.integers(1, 300), st.integers(1, 20), st.integers(1, 16))
def test_a_step_never_changes_however_small_its_batches(
    batch: int, accumulation: int, processes: int
) -> None:
    batches: Batches | None = share_out(batch, accumulation, processes)
    assert batches
    step = batches.step
    assert 0 <= step - batch * accumulation < processes
    while batches:
        assert batches.step == step
        assert batches.size <= batch
        smaller = batches.smaller()
        assert smaller is None or 2 * smaller.size <= batches.size
        if smaller is None:
            assert batches.size == 1
        batches = smaller
