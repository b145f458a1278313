"""Every protocol runs on the tiny preset and writes records that make sense."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from coldfusion_shared.errors import InvalidRequest
from experiments.cache import Cache, Made
from experiments.lab import Busy, Lab, Pending, Sweep
from experiments.progress import Clock
from experiments.protocols import discover
from experiments.protocols.pool_size import sizes_of
from experiments.records import Record, read
from experiments.report.claims import experiment_of
from experiments.report.finished import Finished
from experiments.runs import RECORDS, _lab, begin, load, perform
from tests.experiments.conftest import Inputs
from tests.experiments.labs import lab_of

pytestmark = pytest.mark.usefixtures("one_thread")
# Those of the issue.
WANTED = {
    *("main", "unseen", "few-shot", "contributors", "federated", "data-per-contributor"),
    *("contributors-single", "distribution", "pool-size", "fixed-examples", "other-architecture"),
    *("methods", "server-lr", "optimizers", "staleness", "encodings", "lora-vs-full"),
    *("bf16-master", "attacks"),
}


def test_all_protocols_are_there() -> None:
    assert set(discover()) >= WANTED


@pytest.mark.parametrize("name", sorted(WANTED))
def test_it_runs_and_its_records_make_sense(name: str, inputs: Inputs, tmp_path: Path) -> None:
    run = begin(tmp_path, name, "tiny", inputs.base, inputs.data, {}, "cpu")
    perform(tmp_path, inputs.cache, quiet=True)
    records = list(read(tmp_path / RECORDS))
    _check_scores(records, run.settings.seeds)
    _check_differences(records, discover()[name].reference)
    assert Finished.of(tmp_path).arms[0] == discover()[name].reference
    _check_sweep(_lab(tmp_path, load(tmp_path), Clock(quiet=True)), inputs.cache)
    assert list(read(tmp_path / RECORDS)) == records


@pytest.mark.parametrize(
    ("name", "kind", "module"),
    [("attacks", "attack", "protocols.attacks"), ("main", "multitask", "steps.multitask")],
)
def test_what_other_code_of_the_experiments_made_is_made_anew(
    name: str,
    kind: str,
    module: str,
    inputs: Inputs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def planned() -> set[str]:
        lab = lab_of(inputs, tmp_path)
        lab.planning = True
        discover()[name].run(lab)
        return set(lab.clock.expected[kind])

    before = planned()
    assert before and planned() == before
    monkeypatch.setattr(f"experiments.{module}.digest_of", lambda *_: "another")
    assert len(planned()) == len(before) and planned().isdisjoint(before)


def test_the_papers_claims_are_about_arms_that_there_are() -> None:
    for name in WANTED:
        experiment = experiment_of(name)
        assert (experiment is not None) == (discover()[name].paper is not None), name


class SomeBusy(Cache):
    """A cache of whose entries another process is at every third that is asked for."""

    asked = 0

    def find(self, kind: str, inputs: Mapping[str, Any]) -> Made | None:
        self.asked += 1
        return None if self.asked % 3 == 0 else super().find(kind, inputs)

    def make(self, kind: str, inputs: Mapping[str, Any], *_: Any) -> Made:
        raise Busy


def _check_sweep(lab: Lab, cache: Path) -> None:
    """Go through a protocol while others are at some of it: no results of these are looked at."""
    lab.cache, lab.sweep = SomeBusy(cache, 10**12, lab.cache.code), Sweep()
    with suppress(Pending):
        discover()[lab.protocol].run(lab)
    assert lab.sweep.busy


def _check_scores(records: list[Record], seeds: int) -> None:
    scores = [one for one in records if one.kind == "score"]
    assert {one.seed for one in scores} == set(range(seeds))
    for one in scores:
        assert one.value is not None and 0 <= one.value <= 100
        assert one.dataset and one.scoring and one.base and one.data and one.seconds is not None
    for mean in (one for one in records if one.kind == "mean" and one.dataset and one.iteration):
        of_it = [
            one.value or 0.0
            for one in scores
            if (one.arm, one.iteration, one.scoring, one.dataset, one.seen)
            == (mean.arm, mean.iteration, mean.scoring, mean.dataset, mean.seen)
        ]
        assert mean.value == pytest.approx(sum(of_it) / len(of_it))
        assert mean.standard_error is not None and mean.standard_error > 0


def _check_differences(records: list[Record], reference: str) -> None:
    means = {
        (one.arm, one.scoring, one.group): one.value or 0.0
        for one in records
        if one.kind == "mean" and one.group
    }
    differences = [one for one in records if one.kind == "difference" and one.group == "all"]
    assert {one.arm for one in differences if one.against == reference} == {
        one.arm for one in records if one.kind == "mean" and one.arm != reference
    }
    last = {(one.arm, one.scoring): one for one in differences if one.against == reference}
    for one in last.values():
        before = means[reference, one.scoring, "all"]
        assert one.value == pytest.approx(means[one.arm, one.scoring, "all"] - before)
        assert one.low is not None and one.high is not None and one.low < one.high


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(22, [4, 8, 16]), (14, [4, 8, 11]), (9, [4, 7]), (3, [2]), (2, [1])],
)
def test_pools_leave_some_data_sets_unseen(count: int, sizes: list[int]) -> None:
    assert sizes_of(count, (4, 8, 16)) == sizes


def test_a_single_data_set_is_no_pool() -> None:
    with pytest.raises(InvalidRequest, match="needs two data sets"):
        sizes_of(1, (4,))
