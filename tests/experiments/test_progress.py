"""What is left to do, and how long it takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.progress import Clock


def test_a_kind_that_was_not_measured_is_not_reckoned_by_another() -> None:
    clock = Clock(quiet=True)
    clock.expect("finetune", "a", 100)
    clock.expect("finetune", "b", 100)
    clock.expect("fuse", "c", 8)
    with clock.running():
        assert clock.seconds_left() == (0.0, True)
        with clock.job("finetune", "a", 100, "first"):
            pass
        clock.seconds["finetune"] = 50.0
        assert clock.seconds_left() == (50.0, True)
        with clock.job("fuse", "c", 8, "one"):
            pass
        assert clock.seconds_left() == (50.0, False)


def test_processes_share_what_is_left() -> None:
    clock = Clock(quiet=True, processes=4)
    clock.expect("finetune", "a", 100)
    clock.expect("finetune", "b", 200)
    with clock.running():
        with clock.job("finetune", "a", 100, "first"):
            pass
        clock.seconds["finetune"] = 40.0
        assert clock.seconds_left() == (20.0, False)


@given(st.lists(st.integers(0, 5), max_size=20))
def test_a_job_is_settled_once_whoever_has_done_it(told: list[int]) -> None:
    clock = Clock(quiet=True)
    for number in range(6):
        clock.expect("finetune", str(number), 1)
    with clock.running():
        for number in told:
            clock.settle("finetune", str(number))
        assert set(clock.left["finetune"]) == {str(n) for n in range(6)} - set(map(str, told))


def test_what_was_there_before_is_not_taken_off() -> None:
    clock = Clock(quiet=True)
    clock.settle("finetune", "old")
    clock.expect("finetune", "planned:new", 1)
    with clock.running():
        clock.settle("finetune", "old")
        assert len(clock.left["finetune"]) == 1
        # Its inputs were not known when it was planned.
        clock.settle("finetune", "new")
        assert not clock.left["finetune"]


def test_waiting_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    clock.wait("finetune", "films, lr 0.1")
    assert "finetune films, lr 0.1: another process makes it" in capsys.readouterr().err
