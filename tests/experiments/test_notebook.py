"""Means and differences that are written, whatever has come to nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from coldfusion_shared.evaluate.comparison import compare
from coldfusion_shared.evaluate.results import Evaluated
from experiments.joining import common
from experiments.notebook import FIRST_ROUND, UNSEEN_GAIN, Notebook, Place, joined
from experiments.records import Record, Records, read
from tests.shared.evaluate.measured import entry, evaluated, result

EXAMPLES = 100


def scores(right: float, seed: int, datasets: Mapping[str, bool | None]) -> Evaluated:
    """One seed's scores; the same examples are hard for all."""
    entries = [entry(name, seen=seen) for name, seen in datasets.items()]
    row = [int(index < right) for index in range(EXAMPLES)]
    found = [replace(result(one, [1] * EXAMPLES, [row]), seeds=(seed,)) for one in entries]
    return evaluated(entries, found)


def fold(right: float, seed: int, number: int) -> Evaluated:
    return scores(right, seed, {f"new {number}": False, f"known {number}": True})


@pytest.fixture
def notebook(tmp_path: Path) -> Notebook:
    records = Records(tmp_path / "records.jsonl")
    return Notebook("main", records)


def concluded(
    notebook: Notebook, measured: Mapping[tuple[str, int], Mapping[int, Sequence[Evaluated]]]
) -> list[Record]:
    """Enter evaluations by arm, round and seed; return what is concluded."""
    for (arm, iteration), seeds in measured.items():
        for seed, found in seeds.items():
            for part in found:
                notebook.enter(Place(arm, iteration, "frozen"), seed, part, "0" * 64, 1.0)
    notebook.conclude("pretrained", [])
    return [one for one in read(notebook.records.path) if one.kind != "score"]


def only(found: Sequence[Record], kind: str, arm: str, **fields: object) -> Record:
    wanted = {"kind": kind, "arm": arm, "group": "all", **fields}
    [one] = [one for one in found if wanted.items() <= dict(one).items()]
    return one


def test_bases_that_differ_by_seed_make_wide_intervals(notebook: Notebook) -> None:
    names: dict[str, bool | None] = {str(number): True for number in range(20)}
    before = {seed: [scores(60, seed, names)] for seed in range(3)}
    after = {seed: [scores(right, seed, names)] for seed, right in enumerate((70, 64, 61))}
    found = concluded(notebook, {("pretrained", 0): before, ("cold", 1): after})
    gain = only(found, "difference", "cold")
    assert gain.value == pytest.approx(5) and gain.low is not None and gain.high is not None
    # Three numbers, 10, 4 and 1, are no evidence, in however many data sets they come.
    assert gain.low < 0 and gain.high > 10
    apart = compare(*(joined([one[seed][0] for seed in range(3)]) for one in (before, after)))
    assert apart.average.low is not None and apart.average.low > 3
    mean, alone = only(found, "mean", "cold"), apart.datasets[0].scores
    assert mean.standard_error is not None and alone.standard_error is not None
    assert mean.standard_error > 2.5, "the error bands are as wide"
    film = only(found, "difference", "cold", group=None, dataset="0")
    assert film.standard_error == pytest.approx(alone.standard_error)


def test_a_fold_that_one_seed_lacks_is_left_out_and_named(notebook: Notebook) -> None:
    pretrained = {seed: [fold(60, seed, 0), fold(50, seed, 1)] for seed in range(3)}
    cold = {seed: [fold(63 + seed, seed, 0), fold(99, seed, 1)] for seed in range(2)}
    cold[2] = [fold(65, 2, 0)]
    found = concluded(notebook, {("pretrained", 0): pretrained, ("cold", 1): cold})
    for group in ("all", "seen", "unseen"):
        assert only(found, "mean", "cold", group=group).value == pytest.approx(64)
        gain = only(found, "difference", "cold", against="pretrained", group=group)
        assert gain.value == pytest.approx(4) and gain.note is not None
        assert "new 1 (unseen), known 1 (seen)" in gain.note and "new 0" not in gain.note
    note = only(found, "mean", "cold").note
    assert note is not None and note.startswith("3 seeds; without new 1 (unseen), known 1 (seen)")
    assert only(found, "mean", "pretrained").value == pytest.approx(55)
    assert only(found, "mean", "pretrained").note == "3 seeds"


def test_seeds_that_lack_other_folds_are_never_joined_by_position(notebook: Notebook) -> None:
    pretrained = {seed: [fold(60, seed, 0), fold(50, seed, 1)] for seed in range(2)}
    cold = {0: [fold(70, 0, 0)], 1: [fold(70, 1, 1)]}
    found = concluded(notebook, {("pretrained", 0): pretrained, ("cold", 1): cold})
    notes = [one.note or "" for one in found if one.kind == "failure"]
    assert any(note.startswith("no means: No data sets") for note in notes)
    assert any(note.startswith("not compared with pretrained: No data sets") for note in notes)
    assert not [one for one in found if one.kind == "difference"]
    assert only(found, "mean", "pretrained").value == pytest.approx(55)


def test_arms_that_have_no_seed_in_common_are_not_compared(notebook: Notebook) -> None:
    measured = {("pretrained", 0): {0: [fold(60, 0, 0)]}, ("cold", 1): {1: [fold(60, 1, 0)]}}
    found = concluded(notebook, measured)
    assert [one.note for one in found if one.kind == "failure"] and only(found, "mean", "cold")


def test_parts_come_in_one_order_whatever_the_seeds() -> None:
    parts, without = common([[fold(60, 0, 0), fold(50, 0, 1)], [fold(50, 1, 1), fold(60, 1, 0)]])
    names = [[one.name for one in part.results] for part in parts]
    assert names == [["new 0", "known 0", "new 1", "known 1"]] * 2 and not without


def test_a_line_is_compared_with_its_own_first_round(notebook: Notebook) -> None:
    measured = {
        (arm, iteration): {seed: [fold(right + seed, seed, 0)] for seed in range(2)}
        for arm, iteration, right in (
            ("pretrained", 0, 60), ("fuse", 0, 61),
            ("cold", 2, 62), ("cold", 4, 70), ("cold", 6, 67),
        )
    }  # fmt: skip
    found = concluded(notebook, measured)
    rise = only(found, "difference", "cold", against=FIRST_ROUND)
    assert rise.value == pytest.approx(5) and rise.iteration == 6 and rise.low is not None
    assert {one.arm for one in found if one.against == FIRST_ROUND} == {"cold"}


def test_gains_on_seen_data_sets_are_compared_with_those_on_the_others(notebook: Notebook) -> None:
    def both(known: float, new: float, seed: int) -> Evaluated:
        return replace_results(scores(known, seed, {"k": True, "n": False}), new)

    pretrained = {seed: [both(60, 50, seed)] for seed in range(3)}
    # All data sets gain 1, 6 or 11 points more, and the seen one 5 points above that.
    cold = {seed: [both(66 + 5 * seed, 51 + 5 * seed, seed)] for seed in range(3)}
    found = concluded(notebook, {("pretrained", 0): pretrained, ("cold", 1): cold})
    more = only(found, "difference", "cold", against=UNSEEN_GAIN, group="seen")
    assert more.value == pytest.approx(5) and more.low is not None
    gain = only(found, "difference", "cold", against="pretrained", group="seen")
    assert gain.low is not None and 11 - gain.low > 1.2 * (5 - more.low)


def replace_results(found: Evaluated, new: float) -> Evaluated:
    """Give the data set that is not seen a score of its own."""
    [seed] = found.seeds
    other = scores(new, seed, {one.name: one.seen for one in found.results})
    results = tuple(
        kept if kept.seen else its for kept, its in zip(found.results, other.results, strict=True)
    )
    return replace(found, results=results)


def test_one_seed_has_no_interval(notebook: Notebook) -> None:
    measured = {("pretrained", 0): {0: [fold(60, 0, 0)]}, ("cold", 1): {0: [fold(70, 0, 0)]}}
    found = concluded(notebook, measured)
    gain = only(found, "difference", "cold", against="pretrained")
    assert gain.value == pytest.approx(10) and gain.low is gain.high is gain.standard_error is None
    assert only(found, "mean", "cold").standard_error is None
