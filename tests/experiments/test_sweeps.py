"""Processes that make one run's jobs: each what no other one is at, until nothing is left."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from coldfusion_shared.errors import InvalidRequest, TrainingFailed
from experiments import runs, sweeps
from experiments.cache import Made, _lock_of
from experiments.lab import Lab, Model
from experiments.locks import alone
from experiments.runs import begin, join
from experiments.steps.finetuning import best_rate
from experiments.sweeps import swept
from tests.experiments.conftest import Inputs
from tests.experiments.labs import lab_of


class Others:
    """Another process, which is at some jobs until we wait for it; then it gives them up."""

    def __init__(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lab, self.held, self.waits = lab, ExitStack(), 0
        monkeypatch.setattr(sweeps, "sleep", self.end)

    def begin(self, inputs: Mapping[str, Any]) -> None:
        lock = _lock_of(self.lab.cache._folder("kind", inputs))
        self.held.enter_context(alone(lock, lambda: None))

    def end(self, _: float) -> None:
        self.waits += 1
        self.held.close()


@pytest.fixture
def lab(inputs: Inputs, tmp_path: Path) -> Lab:
    return lab_of(inputs, tmp_path)


@pytest.fixture
def others(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Others:
    return Others(lab, monkeypatch)


class Maker:
    """Makes jobs, and keeps in which order."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.made = lab, list[str]()

    def make(self, name: str, of: Made | None = None, **facts: Any) -> Made:
        def build(_: Path) -> dict[str, Any]:
            self.made.append(name)
            return {"digest": f"{name}'s", **facts}

        return self.lab.make("kind", name, inputs_of(name, of), 1, build)


def inputs_of(name: str, of: Made | None = None) -> dict[str, Any]:
    return {"name": name, "of": None if of is None else [of.facts["digest"]]}


def test_what_another_is_at_is_passed_over_and_what_needs_it(lab: Lab, others: Others) -> None:
    maker, seen = Maker(lab), list[str]()
    others.begin(inputs_of("a"))

    def work(_: Lab) -> str:
        last = maker.make("b", maker.make("a"))
        last = maker.make("d", maker.make("c", last))
        maker.make("e")
        seen.append(last.facts["digest"])
        return "done"

    assert swept(lab, work) == "done"
    assert maker.made == ["e", "a", "b", "c", "d"]
    # One sweep makes what there is to make, one waits, one makes the rest.
    assert len(seen) == 3 and others.waits == 1 and seen[-1] == "d's"
    assert all(name.startswith("planned:") for name in seen[:2])


def test_a_choice_waits_until_all_that_it_is_made_of_is_there(lab: Lab, others: Others) -> None:
    maker = Maker(lab)
    others.begin(inputs_of("0.1"))

    def tried(rate: float) -> list[Model]:
        made = maker.make(str(rate), validation=100 * rate)
        return [Model(made.facts["digest"], Path, facts=made.facts)]

    def work(_: Lab) -> float:
        with lab.failing("arm"):
            best_rate(lab, (0.1, 0.2, 0.3), "arm", tried)
        maker.make("behind it")
        return best_rate(lab, (0.1, 0.2, 0.3), "arm", tried)

    assert swept(lab, work) == 0.3
    assert maker.made == ["0.2", "0.3", "behind it", "0.1"]
    assert not lab.notebook.records.path.exists()


def test_what_comes_to_nothing_is_tried_once(lab: Lab, others: Others) -> None:
    tries = list[str]()
    others.begin(inputs_of("a"))

    def build(_: Path) -> dict[str, Any]:
        tries.append("b")
        raise TrainingFailed("It diverged.")

    def work(_: Lab) -> None:
        Maker(lab).make("a")
        with lab.failing("arm"):
            lab.make("kind", "b", inputs_of("b"), 1, build)

    swept(lab, work)
    assert (tries, others.waits) == (["b"], 1)
    assert not lab.notebook.records.path.exists()


def test_who_joins_makes_all_that_nobody_is_at(
    one_thread: None, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path, "main", "tiny", inputs.base, inputs.data, {}, "cpu")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    join(tmp_path, quiet=True)
    assert {path.name for path in tmp_path.iterdir()} == {*before, runs.CACHE}
    assert (tmp_path / runs.RUN).read_bytes() == before[runs.RUN]

    def make(*_: Any) -> None:
        raise AssertionError("something was left")

    for step in ("finetuning.finetune", "scoring.evaluate_base", "fusing.fuse_folders"):
        monkeypatch.setattr(f"experiments.steps.{step}", make)
    runs.perform(tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("asked", "here", "said"),
    [
        ("experiments.digests.engine", "another", "would not be found"),
        ("coldfusion_shared.finetune.precision.device_kind", "cuda", "there is none here"),
    ],
)
def test_what_would_not_be_found_is_not_made(
    asked: str,
    here: str,
    said: str,
    inputs: Inputs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin(tmp_path, "main", "tiny", inputs.base, inputs.data, {}, "cpu")
    monkeypatch.setattr(asked, lambda: here)
    with pytest.raises(InvalidRequest, match=said):
        join(tmp_path)


def test_a_run_that_a_server_fuses_is_not_joined(inputs: Inputs, tmp_path: Path) -> None:
    begin(
        tmp_path, "main", "tiny", inputs.base, inputs.data, {}, "cpu",
        "http://127.0.0.1:1", "lab/one",
    )  # fmt: skip
    with pytest.raises(InvalidRequest, match="one process"):
        join(tmp_path)
