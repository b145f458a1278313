"""What the tables of attacks say of fused bases, and whom they count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.attack_rounds import Cell
from benchmarks.attacks import BROKEN, GOAL_COUNT, Outcome, _counts, _goals, _told, draw

BEST = Cell({"one": "1111", "two": "1100"}, 10.0)
WORSE = Cell({"one": "1010", "two": "1100"}, 20.0)
BROKEN_CELL = Cell({}, None)
FREE = {"mean": BEST, "norm_clipped_mean": BEST}


def outcome(**changes: object) -> Outcome:
    cells = dict.fromkeys(("free", "without", "screened", "newly"), FREE)
    nobody: dict[str, dict[str, str]] = {"h0": {}, "h1": {}, "bad, 1 of 2": {}, "bad, 2 of 2": {}}
    found = dict.fromkeys(("verdicts", "first", "early"), nobody)
    return Outcome(**{"attack": "bad", "count": GOAL_COUNT, **found, **cells, **changes})  # type: ignore[arg-type]


def test_tasks_count_the_same() -> None:
    assert BEST.accuracy == 75.0
    assert Cell({"one": "11", "two": "0000"}, 0.0).accuracy == 50.0


def test_a_loss_is_of_the_same_examples_and_has_their_error() -> None:
    loss = WORSE.loss(BEST)
    assert loss is not None
    assert loss[0] == pytest.approx(25.0)
    # One task lost 100 points on two of its four examples, the other nothing.
    assert loss[1] == pytest.approx(np.sqrt(np.var([0, 100, 0, 100], ddof=1) / 4) / 2)
    assert BEST.loss(BEST) == (0.0, 0.0)


@pytest.mark.parametrize(("cell", "free"), [(BROKEN_CELL, BEST), (BEST, BROKEN_CELL)])
def test_what_is_no_use_has_no_number(cell: Cell, free: Cell) -> None:
    assert cell.loss(free) is None
    assert _told(cell.loss(free)) == BROKEN
    assert BROKEN_CELL.accuracy is None


def test_attackers_and_honest_ones_are_counted_apart() -> None:
    one = outcome(
        verdicts={"h0": {}, "h1": {"norm": "quarantine"}, "bad, 1 of 2": {"copies": "reject"}},
        first={
            "h0": {},
            "bad, 1 of 2": {"copies": "reject"},
            "bad, 2 of 2": {"direction": "reject"},
        },
        early={"h0": {}, "bad, 1 of 2": {}, "bad, 2 of 2": {}},
    )
    assert _counts(one) == ["1 of 2", "2 of 2", "0 of 2", "copies, direction", "1"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "holds"),
        ({"screened": {"norm_clipped_mean": WORSE}}, "**MISSES**"),
        ({"newly": {"norm_clipped_mean": WORSE}}, "**MISSES**"),
        ({"newly": {"norm_clipped_mean": BROKEN_CELL}}, "**MISSES**"),
        ({"without": {"mean": BROKEN_CELL}}, "holds"),
    ],
)
def test_the_goal_is_for_the_defaults_in_the_first_round_too(
    changes: dict[str, object], expected: str
) -> None:
    *_, row = _goals([outcome(**changes)], FREE)
    assert row.split("|")[-2].strip() == expected


def test_the_goal_is_for_so_many_attackers() -> None:
    assert len(list(_goals([outcome(), outcome(count=3)], FREE))) == 3


def test_a_picture_has_room_for_what_is_broken(tmp_path: Path) -> None:
    draw(
        [outcome(), outcome(without={"mean": BROKEN_CELL, "norm_clipped_mean": WORSE})],
        tmp_path / "a.svg",
    )
    assert BROKEN in (tmp_path / "a.svg").read_text(encoding="utf-8")
