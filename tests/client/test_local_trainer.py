from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from coldfusion_client.local_trainer import LocalTrainer, settings_of
from coldfusion_client.training import Data
from coldfusion_shared import errors
from coldfusion_shared.data import Split, TextDataset
from coldfusion_shared.finetune.estimate import Estimate
from coldfusion_shared.finetune.privacy import Spent
from coldfusion_shared.tasks.pretrained import load_tokenizer
from tests.tiny_models import ARCHITECTURES, tiny_model
from tests.toy_data import toy_dataset


def module(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    """Put a module in the place of one that would load torch."""
    fake = ModuleType(name)
    fake.__dict__.update(contents)
    monkeypatch.setitem(sys.modules, name, fake)


def test_what_is_not_given_keeps_its_default() -> None:
    chosen = settings_of({"epochs": 2.0, "lr": None, "early_stopping": False})
    assert (chosen.epochs, chosen.early_stopping) == (2.0, False)
    assert chosen.lr == settings_of({}).lr


def test_every_setting_that_makes_no_sense_is_named() -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        settings_of({"batch_size": 0, "lr": 7.0})
    assert "--batch-size: " in caught.value.message
    assert "--lr: " in caught.value.message


def test_without_opacus_dp_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_of({"dp": True, "dp_epsilon": 2.0}).wanted_epsilon == 2.0
    monkeypatch.setattr("coldfusion_client.extras.find_spec", lambda name: None)
    assert not settings_of({}).dp
    with pytest.raises(errors.MissingExtra) as missing:
        settings_of({"dp": True})
    assert missing.value.hint == "Run: pip install 'coldfusion[dp]'"


def test_data_are_read_with_the_columns_that_are_named(tmp_path: Path) -> None:
    lines = [f"film {i},{'good' if i % 2 else 'bad'}" for i in range(100)]
    file = tmp_path / "films.csv"
    file.write_text("\n".join(["words,verdict", *lines]))
    data = Data(str(file), {"text": "words", "label": "verdict"})
    dataset = LocalTrainer().read(data, seed=1, config=None)
    assert sorted(dataset.labels) == ["bad", "good"]
    with pytest.raises(errors.BadData, match="nix"):
        LocalTrainer().read(Data(str(file), {"text": "nix"}), seed=1, config=None)


def test_scores_and_results_are_taken_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = SimpleNamespace(
        task="classification",
        metric="accuracy",
        test=80.0,
        steps=7,
        seconds=1.5,
        examples=300,
        metrics={"accuracy": 80.0, "macro F1": 78.5},
        privacy=Spent(2.5, 1e-3, 0.9, 1.0, 0.05, 7),
    )
    module(
        monkeypatch,
        "coldfusion_shared.evaluate.probe",
        probe=lambda *_, **__: SimpleNamespace(accuracy=61.0),
    )
    module(monkeypatch, "coldfusion_shared.finetune.train", finetune=lambda *_: result)
    dataset = toy_dataset(train=30)
    trainer, settings = LocalTrainer(), settings_of({})
    assert trainer.score(tmp_path, dataset, settings) == 61.0
    tagging: Any = SimpleNamespace(task="token-classification")
    assert trainer.can_score(dataset) and not trainer.can_score(tagging)
    trained = trainer.finetune(tmp_path, dataset, settings, tmp_path, lambda *_: None)
    assert trained.model_dump() == {
        "task": "classification", "metric": "accuracy", "score": 80.0, "steps": 7,
        "metrics": {"accuracy": 80.0, "macro F1": 78.5},
        "seconds": 1.5, "examples": 300,
        "privacy": {
            "epsilon": 2.5, "delta": 1e-3, "noise": 0.9, "clip": 1.0, "sample_rate": 0.05,
            "steps": 7,
        },
    }  # fmt: skip


def test_the_time_has_that_of_scoring_the_base_in_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measured = Estimate(
        metric="accuracy", precision="fp32", steps=16, step_examples=16, step_seconds=0.5,
        seconds=9000.0, memory=2_500_000_000, memory_of="process",
    )  # fmt: skip
    probed: list[int] = []

    def seconds(base: Path, dataset: TextDataset, max_length: int) -> float:
        probed.append(sum(len(split) for split in dataset.splits.values()))
        return 500.0

    module(monkeypatch, "coldfusion_shared.evaluate.probe", probe_seconds=seconds)
    module(monkeypatch, "coldfusion_shared.finetune.estimate", estimate=lambda *_: measured)
    films = toy_dataset(train=8000)
    trainer, settings = LocalTrainer(), settings_of({})
    told = trainer.estimate(tmp_path, films, settings, lambda _: None)
    assert (told.seconds, probed) == (9500.0, [1000 + 24 + 30])
    # 1600 examples that are learnt from: as long as 4800 looks, of which the probe has a part.
    short = settings_of({"max_steps": 100})
    trainer.estimate(tmp_path, films, short, lambda _: None)
    assert probed[-1] == 200 + 24 + 30
    longer = settings_of({"max_steps": 500})
    trainer.estimate(tmp_path, films, longer, lambda _: None)
    assert probed[-1] == 417 + 24 + 30
    other = replace(films, task="token-classification")
    assert trainer.estimate(tmp_path, other, settings, lambda _: None) == measured


def test_a_missing_torch_is_said_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    module(monkeypatch, "coldfusion_shared.evaluate.probe", probe=missing)
    dataset = toy_dataset(train=30)
    with pytest.raises(errors.MissingExtra, match="torch") as caught:
        LocalTrainer().score(tmp_path, dataset, settings_of({}))
    assert caught.value.hint == "Run: pip install 'coldfusion[train]'"


def unlimited(folder: Path, kind: str) -> Path:
    """A model that takes 20 tokens, with a tokenizer that names no limit."""
    tiny_model(folder, kind, length=20)
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    del config["model_max_length"]
    file.write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_what_the_model_cuts_is_a_warning_whatever_its_tokenizer_says(
    tmp_path: Path, kind: str
) -> None:
    base = unlimited(tmp_path, kind)
    room = 20 - load_tokenizer(base).num_special_tokens_to_add()
    texts = (" ".join(["film"] * (room - 2)), " ".join(["film"] * (room + 1)))
    split = Split({"text": texts * 20, "label": (0, 1) * 20})
    films = TextDataset("films", "classification", ("bad", "good"), split, split, split)
    found = LocalTrainer().check(base, films, settings_of({"max_length": 128}))
    told = [(one.text, one.serious) for one in found if one.kind == "length"]
    # T5 knows no positions, only distances.
    sentence = "This model takes 20 tokens at most, whatever --max-length says. 50% of the training"
    assert [text.startswith(sentence) and serious for text, serious in told] == (
        [] if kind == "t5" else [True]
    )
    chosen = LocalTrainer().check(base, films, settings_of({"max_length": 10}))
    told = [(one.text, one.serious) for one in chosen if one.kind == "length"]
    assert "100% of the training" in told[0][0] and "A larger --max-length" in told[0][0]
