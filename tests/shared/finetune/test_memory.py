from __future__ import annotations

import json
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification, Trainer

from coldfusion_shared.errors import TrainingFailed
from coldfusion_shared.finetune import FinetuneResult, FinetuneSettings, finetune
from tests.tiny_models import tiny_bert
from tests.toy_data import toy_dataset

SETTINGS = FinetuneSettings(
    epochs=1, lr=1e-3, batch_size=16, max_length=24, seed=1, early_stopping=False
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_bert(tmp_path_factory.mktemp("base"))
    config = json.loads((folder / "config.json").read_text())
    # What is dropped differs with the batches, which would hide whether the gradients do.
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


class Memory:
    """Room for so many examples at once; what is more is as CUDA says it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, training: int, scoring: int) -> None:
        self.asked: list[int] = []
        forward = BertForSequenceClassification.forward

        @wraps(forward)  # the Trainer looks at its parameters
        def limited(model: Any, input_ids: Any = None, **inputs: Any) -> Any:
            room = training if model.training else scoring
            if model.training:
                self.asked.append(len(input_ids))
            if len(input_ids) > room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return forward(model, input_ids=input_ids, **inputs)

        monkeypatch.setattr(BertForSequenceClassification, "forward", limited)


def run(
    base: Path, out: Path, said: list[str], losses: dict[int, float] | None = None
) -> FinetuneResult:
    told: dict[int, float] = {} if losses is None else losses

    def progress(done: int, total: int, loss: float) -> None:
        told[done] = loss

    return finetune(base, toy_dataset(), SETTINGS, out, progress, said.append)


def test_too_large_a_batch_is_halved_and_the_result_is_the_same(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: dict[str, dict[int, float]] = {"a": {}, "b": {}}
    expected = run(base, tmp_path / "a", [], losses["a"])
    memory, said = Memory(monkeypatch, training=5, scoring=7), list[str]()
    result = run(base, tmp_path / "b", said, losses["b"])
    assert memory.asked == [16, 8, *[4] * 16]
    assert said[-1] == (
        "The memory does not suffice: going on with 4 examples at a time. A step still learns "
        "from 16."
    )
    assert (result.steps, result.test) == (expected.steps, expected.test)
    # The losses tell the weights: Adam makes whole steps of differences in rounding alone.
    assert losses["b"] == pytest.approx(losses["a"], rel=1e-3)


def test_where_one_example_is_too_much_it_ends(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(monkeypatch, training=0, scoring=0)
    with pytest.raises(TrainingFailed, match="more memory than there is") as caught:
        run(base, tmp_path / "out", [])
    assert "--gradient-checkpointing" in str(caught.value.hint)
    assert memory.asked == [16, 8, 4, 2, 1]
    assert list(tmp_path.iterdir()) == []


def test_any_other_failure_is_not_tried_again(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def broken(*_: Any, **__: Any) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Trainer, "training_step", broken)
    with pytest.raises(TrainingFailed, match="shapes differ"):
        run(base, tmp_path / "out", [])
    assert calls == 1
