from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file

from coldfusion_shared.data import Split
from coldfusion_shared.finetune import FinetuneSettings, finetune
from coldfusion_shared.finetune import estimate as estimating
from coldfusion_shared.finetune.estimate import MEASURED_STEPS, ScoringCost, estimate
from coldfusion_shared.finetune.trainer import OurTrainer
from tests.tiny_models import tiny_bert
from tests.toy_data import toy_dataset


def test_a_few_real_steps_tell_the_rest_and_leave_nothing(tmp_path: Path) -> None:
    base = tiny_bert(tmp_path / "base")
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    settings = FinetuneSettings(epochs=3, batch_size=4, gradient_accumulation=2, max_length=24)
    told = estimate(base, toy_dataset(train=160), settings)
    assert (told.metric, told.steps, told.step_examples) == ("accuracy", 60, 8)
    assert told.steps > MEASURED_STEPS
    # The process alone, with torch in it, has hundreds of megabytes.
    assert 50e6 < told.memory < 50e9
    assert told.seconds > told.steps * told.step_seconds > 0
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


@pytest.mark.parametrize(
    ("early_stopping", "freeze", "measured_of", "kept"),
    [(True, None, "process", "all"), (False, None, "process", ""), (True, None, "GPU", ""),
     (True, ("encoder", "embeddings"), "process", "pooler classifier")],
)  # fmt: skip
def test_the_best_epochs_weights_are_counted_where_they_are_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    early_stopping: bool,
    freeze: tuple[str, ...] | None,
    measured_of: str,
    kept: str,
) -> None:
    monkeypatch.setattr(estimating, "_peak", lambda: (10**9, measured_of))
    settings = FinetuneSettings(
        max_steps=1, batch_size=4, max_length=24, early_stopping=early_stopping, freeze=freeze
    )
    told = estimate(tiny_bert(tmp_path / "base"), toy_dataset(), settings)
    assert (told.memory - 10**9) == sum(
        4 * tensor.numel()
        for name, tensor in learnt(tmp_path).items()
        if kept == "all" or any(part in kept for part in name.split(".")[:2])
    )


def learnt(folder: Path) -> dict[str, Any]:
    """Return the weights of a whole classifier."""
    finetune(folder / "base", toy_dataset(), FinetuneSettings(max_steps=1), folder / "out")
    return dict(load_file(folder / "out" / "model.safetensors"))


class Clock:
    """Goes on only while something is scored: `beginning` seconds, and `each` for an example."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, beginning: float, each: float) -> None:
        self.now, self.beginning, self.each = 0.0, beginning, each
        self.sizes: list[int] = []
        monkeypatch.setattr(estimating, "time", SimpleNamespace(monotonic=lambda: self.now))

    def score(self, split: Split) -> None:
        self.sizes.append(len(split))
        # What is done once only takes its time, too.
        self.now += self.beginning + self.each * len(split) + (100 if len(self.sizes) == 1 else 0)


@pytest.mark.parametrize("batch", [4, 8, 64])
def test_what_a_scoring_costs_to_begin_is_not_counted_for_every_example(
    monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    clock = Clock(monkeypatch, beginning=2.0, each=0.01)
    cost = estimating._measured(clock.score, toy_dataset(), batch)
    assert [cost.beginning, cost.each] == pytest.approx([2.0, 0.01])
    assert cost.of(10_000) == pytest.approx(102.0)
    assert max(clock.sizes) == min(2 * batch, 30)


def test_a_long_scoring_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, beginning=0.0, each=1.0)
    cost = estimating._measured(clock.score, toy_dataset(), 8)
    assert (cost.beginning, cost.each) == (0.0, 1.0)
    assert clock.sizes == [4, 8]


@pytest.mark.parametrize(
    ("epochs", "max_steps", "early_stopping", "scorings"),
    [(3, None, True, 5), (40, 25, True, 4), (40, 20, True, 3), (2.5, None, True, 5),
     (3, None, False, 2)],
)  # fmt: skip
def test_scorings_are_those_of_the_epochs_that_are_begun(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    epochs: float,
    max_steps: int | None,
    early_stopping: bool,
    scorings: int,
) -> None:
    monkeypatch.setattr(estimating, "MEASURED_STEPS", 2)
    monkeypatch.setattr(estimating, "_measured", lambda *_: ScoringCost(1e6, 0.0))
    settings = FinetuneSettings(
        epochs=epochs, max_steps=max_steps, batch_size=8, max_length=24,
        early_stopping=early_stopping,
    )  # fmt: skip
    told = estimate(tiny_bert(tmp_path), toy_dataset(train=160), settings)
    assert round(told.seconds / 1e6) == scorings


def test_as_many_scorings_are_counted_as_a_training_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_bert(tmp_path / "base")
    scored: list[int] = []
    evaluate = OurTrainer.evaluate

    def counted(trainer: Any) -> Any:
        scored.append(len(trainer.eval_dataset))
        return evaluate(trainer)

    settings = FinetuneSettings(epochs=9, max_steps=11, batch_size=8, lr=1e-3, max_length=24)
    with monkeypatch.context() as patch:
        patch.setattr(OurTrainer, "evaluate", lambda trainer, *_, **__: counted(trainer))
        finetune(base, toy_dataset(train=64), settings, tmp_path / "out")
    monkeypatch.setattr(estimating, "_measured", lambda *_: ScoringCost(1e6, 0.0))
    assert round(estimate(base, toy_dataset(train=64), settings).seconds / 1e6) == len(scored)
