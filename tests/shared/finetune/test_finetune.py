from __future__ import annotations

import math
import time
from errno import ENOMEM, ENOSPC
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerControl,
)

from coldfusion_shared.errors import BadModel, StorageFull, TrainingFailed
from coldfusion_shared.finetune import FinetuneResult, FinetuneSettings, finetune
from coldfusion_shared.finetune.callbacks import BestWeights
from coldfusion_shared.finetune.failures import diverged, named_failures
from coldfusion_shared.tasks.pretrained import load_model
from tests.tiny_models import tiny_bert
from tests.toy_data import LABELS, toy_dataset

SETTINGS = FinetuneSettings(
    epochs=10, lr=3e-3, batch_size=16, max_length=24, seed=1, early_stopping=False
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base"))


def run(base: Path, out: Path, *, pairs: bool = False, **changed: Any) -> FinetuneResult:
    settings = SETTINGS.model_copy(update=changed)
    return finetune(base, toy_dataset(pairs=pairs), settings, out, lambda *_: None)


@pytest.mark.parametrize("pairs", [False, True])
def test_it_learns_and_writes_a_complete_model(base: Path, tmp_path: Path, pairs: bool) -> None:
    began = time.monotonic()
    result = run(base, tmp_path / "out", pairs=pairs)
    took = time.monotonic() - began
    assert (result.task, result.metric) == ("classification", "accuracy")
    assert min(result.validation, result.test) > 90
    assert result.metrics["accuracy"] == result.test
    assert (result.steps, result.examples) == (40, 64)
    assert 0 < result.seconds < took

    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".safetensors"}
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert model.config.id2label == dict(enumerate(LABELS))
    assert model.config.label2id == {label: index for index, label in enumerate(LABELS)}
    assert _accuracy(model, tmp_path / "out", pairs) == pytest.approx(result.test)


def _accuracy(model: Any, folder: Path, pairs: bool) -> float:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    test = toy_dataset(pairs=pairs).test
    seconds = test.get("text_pair")
    batch = tokenizer(
        list(test["text"]), list(seconds) if seconds else None,
        padding=True, truncation=True, max_length=SETTINGS.max_length, return_tensors="pt",
    )  # fmt: skip
    with torch.inference_mode():
        right = model(**batch).logits.argmax(-1) == torch.tensor(test["label"])
    return 100 * float(right.float().mean())


def test_every_tensor_of_the_body_keeps_its_name_and_shape(base: Path, tmp_path: Path) -> None:
    run(base, tmp_path / "out", max_steps=1)
    body = {name: tensor.shape for name, tensor in load_file(base / "model.safetensors").items()}
    trained = load_file(tmp_path / "out" / "model.safetensors")
    assert body == {
        name.removeprefix("bert."): tensor.shape
        for name, tensor in trained.items()
        if name.startswith("bert.")
    }
    assert AutoModel.from_pretrained(tmp_path / "out").config.hidden_size == 32


def test_a_seed_decides_everything(base: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(hash(name))
        run(base, tmp_path / name, seed=seed, epochs=1)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_progress_counts_the_steps(base: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int, float]] = []
    settings = SETTINGS.model_copy(update={"epochs": 1.5})
    dataset = toy_dataset(train=40)
    finetune(base, dataset, settings, tmp_path / "out", lambda *call: calls.append(call))
    assert [call[:2] for call in calls] == [(step, 5) for step in range(1, 6)]
    assert all(0 < loss < 5 for _, _, loss in calls)


def test_nothing_is_printed(base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(base, tmp_path / "out", early_stopping=True)
    assert capfd.readouterr() == ("", "")


def test_early_stopping_ends_when_nothing_is_gained_any_more(base: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 50, "early_stopping": True})
    dataset = toy_dataset(train=512)
    result = finetune(base, dataset, settings, tmp_path / "out", lambda *_: None)
    assert result.validation == 100
    assert 3 * 32 <= result.steps <= 6 * 32


def test_the_best_weights_are_kept() -> None:
    best, control, model = BestWeights(), TrainerControl(), torch.nn.Linear(1, 1, bias=False)
    stopped = []
    for epoch, score in enumerate([50.0, 49.0, 70.0, 70.05, 60.0]):
        model.weight.data.fill_(epoch)
        control.should_training_stop = False
        best.on_evaluate(None, None, control, metrics={"eval_score": score}, model=model)
        stopped.append(control.should_training_stop)
    assert stopped == [False, False, False, False, True]
    assert (best.score, best.weights["weight"].item()) == (70.05, 3)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_what_the_progress_raises_ends_the_training(
    base: Path, tmp_path: Path, error: type[BaseException]
) -> None:
    def progress(done: int, total: int, loss: float) -> None:
        if done == 3:
            raise error

    with pytest.raises(error):
        finetune(base, toy_dataset(), SETTINGS, tmp_path / "out", progress)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_cleared_away(base: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "half.safetensors").write_text("half")
    (tmp_path / "out").mkdir()
    run(base, tmp_path / "out", max_steps=1)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (tmp_path / "out" / "half.safetensors").exists()


def test_a_diverging_training_is_stopped(base: Path, tmp_path: Path) -> None:
    huge = tiny_bert(tmp_path / "huge")
    tensors = load_file(huge / "model.safetensors")
    tensors["embeddings.LayerNorm.weight"] *= math.inf
    save_file(tensors, huge / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingFailed, match="diverged: after step 1") as caught:
        run(huge, tmp_path / "out")
    assert caught.value.hint == "Use a lower learning rate, such as --lr 1e-04."
    assert not (tmp_path / "out").exists()


def test_a_base_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(BadModel):
        run(tmp_path / "nowhere", tmp_path / "out")


@pytest.mark.parametrize(
    ("raised", "expected", "hint"),
    [
        (OSError(ENOSPC, "No space left on device"), StorageFull, "Free some space"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), StorageFull, "Free"),
        (MemoryError(), TrainingFailed, "--batch-size"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), TrainingFailed, "--batch-size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), TrainingFailed, "--batch"),
        (RuntimeError("unable to mmap 8 bytes: Cannot allocate memory (12)"), TrainingFailed, "--"),
        (SafetensorError("I/O error: (os error 12)"), TrainingFailed, "--batch-size"),
        (OSError(ENOMEM, "Cannot allocate memory"), TrainingFailed, "--batch-size"),
        (ImportError("_x.so: failed to map segment from shared object"), TrainingFailed, "--batch"),
    ],
)
def test_failures_have_our_names(raised: Exception, expected: type[Exception], hint: str) -> None:
    with pytest.raises(expected) as caught, named_failures():
        raise raised
    assert hint in caught.value.hint  # type: ignore[attr-defined]


@pytest.mark.parametrize(("lr", "lower"), [(1.0, "1e-04"), (5e-4, "1e-04"), (5e-5, "1e-05")])
def test_a_diverged_training_is_offered_a_lower_rate(lr: float, lower: str) -> None:
    assert diverged(3, lr).hint == f"Use a lower learning rate, such as --lr {lower}."


def test_what_is_not_installed_is_no_lack_of_memory() -> None:
    with pytest.raises(ModuleNotFoundError), named_failures():
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")


def test_a_model_that_the_memory_has_no_room_for_is_not_at_fault(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 bytes")

    monkeypatch.setattr(AutoModel, "from_pretrained", full)
    with pytest.raises(TrainingFailed, match="more memory than there is"):
        load_model("AutoModel", base)


def test_any_other_failure_is_said_in_one_line() -> None:
    message = r"^Finetuning failed: shapes differ$"
    with pytest.raises(TrainingFailed, match=message), named_failures():
        raise RuntimeError("shapes differ\nstack of C++")


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0}, {"lr": 0.0}, {"lr": 2}, {"batch_size": 0}, {"max_length": 1}, {"seed": -1},
        {"max_steps": 0}, {"learning_rate": 1e-4}, {"gradient_accumulation": 0},
        {"precision": "fp8"},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FinetuneSettings(**wrong)


def test_every_setting_is_explained() -> None:
    assert all(field.description for field in FinetuneSettings.model_fields.values())
