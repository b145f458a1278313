"""Data sets that the pretrained model learns nothing of are left out of a run."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from coldfusion_shared.errors import InvalidRequest, TrainingFailed
from experiments import learnable
from experiments.data import Data
from experiments.lab import Lab, Model
from experiments.learnable import LEVEL
from experiments.report import TEXT, write_report
from experiments.report.finished import Finished
from experiments.runs import begin, load, perform
from tests.experiments.conftest import Inputs
from tests.experiments.labs import lab_of
from tests.experiments.small import tiny_data

pytestmark = pytest.mark.usefixtures("one_thread")
PROTOCOL = "fixed-examples"
SIZES = {"train": 48, "validation": 96, "test": 24}
# So the tiny model learns which words decide.
LEARNS: dict[str, Any] = {
    "only_learnable": True,
    "seeds": 1,
    "rounds": 1,
    "examples": 48,
    "learning": {"lr": [3e-2], "epochs": 8},
}
LEARNABLE, CHANCE = "films", "rooms"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets, in one of which the labels are thrown like coins, mostly showing one side."""
    folder = tiny_data(tmp_path_factory.mktemp("data"), SIZES)
    thrown = random.Random(0)
    for path in (folder / CHANCE).iterdir():
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        changed = [{**line, "label": int(thrown.random() < 0.3)} for line in lines]
        path.write_text("".join(json.dumps(line) + "\n" for line in changed), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(
    one_thread: None, inputs: Inputs, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("learnable")
    begin(out, PROTOCOL, "tiny", inputs.base, data, LEARNS, "cpu")
    perform(out, inputs.cache, quiet=True)
    return out


def test_what_is_chance_is_left_out_and_told(run: Path) -> None:
    learnt = load(run).learnt or {}
    assert learnt[LEARNABLE].kept and not learnt[CHANCE].kept
    kept = [name for name, one in learnt.items() if one.kept]
    assert Finished.of(run).datasets("frozen") == kept
    page = write_report([run], run / "page")
    told = page.with_name(TEXT).read_text(encoding="utf-8")
    score, largest = learnt[CHANCE].score, learnt[CHANCE].largest
    assert f"{CHANCE} ({score:.1f}; {largest:.1f})" in told
    assert f"{LEARNABLE} (" not in told


def test_it_is_decided_once(
    run: Path, inputs: Inputs, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided = load(run).learnt
    monkeypatch.setattr(learnable, "learnt_by_pretrained", lambda _: pytest.fail("decided again"))
    begin(run, PROTOCOL, "tiny", inputs.base, data, LEARNS, "cpu", cache=inputs.cache)
    perform(run, quiet=True)
    assert load(run).learnt == decided


def test_a_plan_counts_all_and_says_so(
    inputs: Inputs, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(tmp_path, PROTOCOL, "tiny", inputs.base, data, LEARNS, "cpu")
    assert (perform(tmp_path, plan=True) or 0) > 0
    said = capsys.readouterr().err
    assert "all 3 data sets" in said
    # Contributions of the line, and a finetuning of each data set to decide by.
    assert f"finetune: {2 + 3} jobs" in said
    assert load(tmp_path).learnt is None


def test_a_base_that_learns_nothing_is_refused(inputs: Inputs, data: Path, tmp_path: Path) -> None:
    given = {**LEARNS, "datasets": [CHANCE]}
    begin(tmp_path, PROTOCOL, "tiny", inputs.base, data, given, "cpu")
    with pytest.raises(InvalidRequest, match="learns nothing of any data set from 48 examples"):
        perform(tmp_path, quiet=True)


@pytest.fixture
def lab(inputs: Inputs, tmp_path: Path, data: Path) -> Lab:
    found = lab_of(inputs, tmp_path)
    found.data = Data(data, (CHANCE,))
    return found


@pytest.mark.parametrize("right", range(0, 97, 8))
def test_the_chance_is_that_of_throwing_a_coin(
    right: int, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = SIZES["validation"]
    model = Model("", Path, facts={"validation": 100 * right / size})
    monkeypatch.setattr(learnable, "finetuned", lambda *_: model)
    found = learnable._learnt(lab, CHANCE)
    share = found.largest / 100
    ways = (
        math.comb(size, n) * share**n * (1 - share) ** (size - n) for n in range(right, size + 1)
    )
    wanted = math.fsum(ways)
    assert found.p_value == pytest.approx(wanted, rel=0.01)
    assert found.kept == (wanted < LEVEL)
    assert found.score == pytest.approx(100 * right / size, abs=0.01)


def test_the_lowest_rate_that_learns_something_decides(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[float] = []

    def learnt(_: Lab, base: Model, part: object, lr: float, seed: int) -> Model:
        tried.append(lr)
        if lr == 1.0:
            raise TrainingFailed("It diverged.")
        return Model("", Path, facts={"validation": {1e-3: 10.0, 1e-2: 100.0}[lr]})

    monkeypatch.setattr(learnable, "finetuned", learnt)

    def score(*rates: float) -> tuple[float, bool]:
        tried.clear()
        learning = lab.settings.learning.model_copy(update={"lr": rates})
        lab.settings = lab.settings.model_copy(update={"learning": learning})
        found = learnable._learnt(lab, CHANCE)
        return found.score, found.kept

    assert score(1.0, 1e-2, 1e-3) == (100.0, True)
    assert tried == [1e-3, 1e-2]
    assert score(1.0, 1e-3) == (10.42, False)
    assert tried == [1e-3, 1.0]
