"""Data sets that the pretrained model learns nothing of are left out of a run."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from coldfusion_shared.errors import InvalidRequest, TrainingFailed
from experiments import learnable
from experiments.data import Data
from experiments.lab import Lab, Model
from experiments.learnable import LEVEL
from experiments.report import SIEVED, TEXT, write_report
from experiments.report.finished import Finished
from experiments.runs import RUN, begin, load, perform
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
    assert SIEVED in told


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
    two = lab.settings.learning.model_copy(update={"lr": (1e-3, 1e-3)})
    lab.settings = lab.settings.model_copy(update={"learning": two})
    assert learnable._learnt(lab, CHANCE).kept == (wanted < LEVEL / 2)


def test_what_too_few_examples_cannot_tell_is_kept(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learnable, "finetuned", lambda *_: Model("", Path, facts={}))
    kept = []
    for size in (5, 8):
        data = tiny_data(tmp_path / str(size), {**SIZES, "validation": size})
        lab.data = Data(data, (LEARNABLE,))
        kept.append(learnable._learnt(lab, LEARNABLE).kept)
    # Five right guesses of two even classes happen once in 32 times, eight once in 256.
    assert kept == [True, False]


def test_other_code_decides_anew(run: Path, inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    file = load(out)
    assert file.learnt
    other = {name: one.model_copy(update={"score": 1.0}) for name, one in file.learnt.items()}
    text = yaml.safe_dump(file.model_copy(update={"learnt": other, "code": "other"}).document())
    (out / RUN).write_text(text, encoding="utf-8")
    perform(out, inputs.cache, quiet=True)
    assert load(out).learnt == file.learnt


def test_processes_decide_as_one_does(
    run: Path, inputs: Inputs, data: Path, tmp_path: Path
) -> None:
    begin(tmp_path, PROTOCOL, "tiny", inputs.base, data, {**LEARNS, "seeds": 2}, "cpu")
    perform(tmp_path, quiet=True, jobs=2)
    assert load(tmp_path).learnt == load(run).learnt


@pytest.mark.parametrize("name", ["federated", "other-architecture"])
def test_where_there_is_no_pool_nothing_is_left_out(
    name: str, inputs: Inputs, data: Path, tmp_path: Path
) -> None:
    begin(tmp_path, name, "tiny", inputs.base, data, {**LEARNS, "single": CHANCE}, "cpu")
    perform(tmp_path, inputs.cache, quiet=True)
    assert load(tmp_path).learnt is None
    assert CHANCE in Finished.of(tmp_path).datasets("frozen")


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

    def score(*rates: float) -> tuple[float | None, bool]:
        tried.clear()
        learning = lab.settings.learning.model_copy(update={"lr": rates})
        lab.settings = lab.settings.model_copy(update={"learning": learning})
        found = learnable._learnt(lab, CHANCE)
        return found.score, found.kept

    assert score(1.0, 1e-2, 1e-3) == (100.0, True)
    assert tried == [1e-3, 1e-2]
    assert score(1.0, 1e-3) == (10.42, False)
    assert tried == [1e-3, 1.0]
    assert score(1.0) == (None, False)
