from __future__ import annotations

import signal
import subprocess
import sys
from errno import ENOSPC
from pathlib import Path
from typing import Any

import pytest
import torch

from coldfusion_shared.finetune import FinetuneResult, checkpoints, finetune
from coldfusion_shared.finetune.checkpoints import MARKER, Checkpoints, Mark, name_training
from tests.shared.finetune.killed import LAST_STEP, SETTINGS
from tests.tiny_models import tiny_bert
from tests.toy_data import toy_dataset

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base"))


@pytest.fixture
def at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)


class Run:
    """One finetuning into a folder, and what it told."""

    def __init__(self, base: Path, folder: Path, **changed: Any) -> None:
        self.base, self.folder = base, folder
        self.settings = SETTINGS.model_copy(update=changed)
        self.steps: list[int] = []
        self.said: list[str] = []
        self.stop_at: int | None = None
        self.result: FinetuneResult | None = None

    def __call__(self) -> FinetuneResult:
        return finetune(
            self.base, toy_dataset(), self.settings, self.folder / "out", self._progress,
            self.said.append, self.folder / "checkpoints",
        )  # fmt: skip

    def _progress(self, done: int, total: int, loss: float) -> None:
        self.steps.append(done)
        if done == self.stop_at:
            raise KeyboardInterrupt

    @property
    def weights(self) -> bytes:
        return (self.folder / "out" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(one_thread: None, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(base, tmp_path_factory.mktemp("undisturbed"))
    run.result = run()
    return run


def test_killed_in_the_middle_it_ends_with_the_very_same_weights(
    base: Path, tmp_path: Path, undisturbed: Run
) -> None:
    command = [sys.executable, "-m", "tests.shared.finetune.killed", str(base), str(tmp_path)]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2

    resumed = Run(base, tmp_path)
    result, expected = resumed(), undisturbed.result
    # The one of step 12; a kill while that of step 13 was written would not have hurt.
    assert resumed.steps[0] == LAST_STEP
    assert resumed.said == [f"Going on after step {LAST_STEP - 1}."]
    assert resumed.weights == undisturbed.weights
    assert expected and (result.steps, result.validation, result.test) == (
        expected.steps, expected.validation, expected.test
    )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("stop_at", [9, 17])
def test_stopped_at_an_epochs_edge_it_goes_on_there(
    base: Path, tmp_path: Path, undisturbed: Run, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    # Only at the ends of epochs.
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)
    run = Run(base, tmp_path)
    run.stop_at = stop_at
    with pytest.raises(KeyboardInterrupt):
        run()
    run.stop_at, run.steps = None, []
    run()
    assert run.steps[0] == stop_at
    assert run.weights == undisturbed.weights


def test_one_that_had_ended_is_not_trained_again(
    base: Path, tmp_path: Path, undisturbed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(base, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("coldfusion_shared.finetune.training.Training.save", _interrupt)
        patch.setattr(checkpoints, "SHARE", 1e9)
        with pytest.raises(KeyboardInterrupt):
            run()
    run.steps = []
    assert run().steps == 24
    assert run.steps == []
    assert run.weights == undisturbed.weights


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_those_of_another_training_are_not_taken(
    base: Path, tmp_path: Path, at_every_step: None
) -> None:
    run = Run(base, tmp_path, lr=1e-4)
    run.stop_at = 5
    with pytest.raises(KeyboardInterrupt):
        run()
    other = Run(base, tmp_path)
    other()
    assert other.steps[0] == 1
    assert other.said == []


def test_a_full_disk_ends_no_training(
    base: Path, tmp_path: Path, at_every_step: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(content: Any, path: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", save)
    run = Run(base, tmp_path, max_steps=2)
    result = run()
    assert result.steps == 2
    assert run.said == [
        "A checkpoint could not be written ([Errno 28] No space left on device). The training "
        "goes on."
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_only_complete_ones_count_and_two_are_kept(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, "mine")
    assert kept.latest() is None
    for step in (8, 16, 104):
        kept.begin()
        (tmp_path / f"checkpoint-{step}").mkdir()
        kept.complete(tmp_path / f"checkpoint-{step}", Mark("mine", step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-104", "checkpoint-16"]
    (tmp_path / "checkpoint-104" / MARKER).write_text('{"training": "mi')
    assert kept.latest() == (tmp_path / "checkpoint-16", Mark("mine", 16))
    assert not (tmp_path / "checkpoint-104").exists()
    kept.clear()
    assert not tmp_path.exists()


def test_they_take_a_small_part_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    kept, size = Checkpoints(tmp_path, "mine"), int(checkpoints.BYTES_A_SECOND)
    assert not kept.due(size, epoch_ends=True)
    now += 1 / checkpoints.SHARE
    assert kept.due(size, epoch_ends=True)
    assert not kept.due(size, epoch_ends=False)
    now += checkpoints.SECONDS_BETWEEN
    assert kept.due(size, epoch_ends=False)


def test_base_data_and_settings_name_a_training(base: Path, tmp_path: Path) -> None:
    other = tiny_bert(tmp_path / "other", seed=1)
    names = {
        name_training(base, toy_dataset(), SETTINGS),
        name_training(other, toy_dataset(), SETTINGS),
        name_training(base, toy_dataset(seed=1), SETTINGS),
        name_training(base, toy_dataset(), SETTINGS.model_copy(update={"lr": 1e-4})),
    }
    assert len(names) == 4
    assert name_training(tiny_bert(tmp_path / "same"), toy_dataset(), SETTINGS) in names
