from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel, AutoTokenizer, BertModel

from coldfusion_shared.data import Split
from coldfusion_shared.errors import BadModel, TrainingFailed
from coldfusion_shared.evaluate import probe
from coldfusion_shared.evaluate.features import Encoder
from coldfusion_shared.evaluate.probe import fit_probe, probe_seconds
from coldfusion_shared.finetune import FinetuneSettings, finetune
from tests.tiny_models import ARCHITECTURES, tiny_bert, tiny_model
from tests.toy_data import toy_dataset

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base"))


def test_a_model_that_makes_no_numbers_is_said_to(tmp_path: Path) -> None:
    wild = tiny_bert(tmp_path)
    weights = load_file(wild / "model.safetensors")
    weights["embeddings.LayerNorm.weight"] *= 1e20
    save_file(weights, wild / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingFailed, match="not finite"):
        probe(wild, toy_dataset(), max_length=24)


def plain_features(folder: Path, split: Split, max_length: int) -> Any:
    """Features one by one, so without any padding, by nothing but transformers."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModel.from_pretrained(folder).eval()
    rows = []
    for text, pair in split.keys(["text", "text_pair"]):
        one = tokenizer(text, pair, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.no_grad():
            rows.append(model(**one).last_hidden_state[0].mean(0).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("pairs", [False, True])
def test_features_are_means_without_padding(base: Path, pairs: bool) -> None:
    train = toy_dataset(pairs=pairs, train=150).train
    seen: list[int] = []
    features = Encoder(base, 12).features(train, seen.append)
    np.testing.assert_allclose(features, plain_features(base, train, 12), atol=1e-5)
    assert features.dtype == np.float32
    assert sum(seen) == 150


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_architecture_has_features(tmp_path: Path, kind: str) -> None:
    train = toy_dataset(train=12).train
    features = Encoder(tiny_model(tmp_path, kind), 12).features(train)
    assert features.shape[0] == 12 and np.isfinite(features).all()
    # One text alone, without padding, has the same ones.
    alone = Encoder(tmp_path, 12).features(train.take([5]))
    np.testing.assert_allclose(features[5:6], alone, atol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_features_of_a_text_do_not_depend_on_its_batch(tmp_path: Path, kind: str) -> None:
    folder = tiny_model(tmp_path, kind)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(folder)
    short, long = "a film", "the film was good and the film was bad and the film was great"
    encoder = Encoder(folder, 48)
    together = encoder.features(Split({"text": (short, long)}))
    alone = [encoder.features(Split({"text": (text,)}))[0] for text in (short, long)]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    # And they are those of the text without any padding.
    expected = plain_features(folder, Split({"text": (short, long)}), 48)
    np.testing.assert_allclose(together, expected, atol=1e-5)


def test_a_probe_is_a_logistic_regression_on_them(base: Path) -> None:
    dataset = toy_dataset(train=40)
    result = probe(base, dataset, max_length=24)
    scaler = StandardScaler().fit(plain_features(base, dataset.train, 24))
    x = {
        name: scaler.transform(plain_features(base, getattr(dataset, name), 24))
        for name in ("train", "validation", "test")
    }
    plain = LogisticRegression(C=result.strength, max_iter=2000)
    plain.fit(x["train"], dataset.train["label"])
    assert result.accuracy == pytest.approx(100 * plain.score(x["test"], dataset.test["label"]))
    assert result.examples == 30
    assert probe(base, dataset, max_length=24) == result


def part(rng: np.random.Generator, size: int, noise: float) -> tuple[Any, Any]:
    labels = np.arange(size) % 3
    clean = np.eye(3)[labels] @ np.ones((3, 8)) + np.eye(3, 8)[labels]
    return (clean + noise * rng.standard_normal(clean.shape)).astype(np.float32), labels


def test_strength_is_chosen_on_validation_never_on_test() -> None:
    rng = np.random.default_rng(0)
    train, validation = part(rng, 90, 0.3), part(rng, 60, 0.3)
    good, bad = part(rng, 60, 0.3), part(rng, 60, 30.0)
    first, second = (fit_probe(train, validation, test) for test in (good, bad))
    assert first.strength == second.strength
    assert first.accuracy > 80 > second.accuracy


def test_a_feature_that_never_changes_and_a_label_that_train_lacks_do_no_harm() -> None:
    rng = np.random.default_rng(0)
    train, validation, test = part(rng, 60, 0.1), part(rng, 30, 0.1), part(rng, 30, 0.1)
    for features, _ in (train, validation, test):
        features[:, 0] = 7
    train = (train[0][train[1] < 2], train[1][train[1] < 2])
    assert fit_probe(train, validation, test).accuracy == pytest.approx(66.7, abs=0.1)


def test_finetuning_on_a_task_makes_its_body_better_to_probe(base: Path, tmp_path: Path) -> None:
    dataset = toy_dataset(train=32)
    settings = FinetuneSettings(epochs=15, lr=3e-3, max_length=24, early_stopping=False)
    finetune(base, dataset, settings, tmp_path / "tuned", lambda *_: None)
    before, after = (
        probe(folder, dataset, max_length=24).accuracy for folder in (base, tmp_path / "tuned")
    )
    assert after >= before
    assert after > 90


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(BadModel):
        probe(tmp_path, toy_dataset(), max_length=24)


class Memory:
    """Room for so many tokens at once; what is more is as CUDA says it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.asked: list[tuple[int, ...]] = []
        self.threads: list[int] = []
        forward = BertModel.forward

        def limited(model: Any, input_ids: Any, **inputs: Any) -> Any:
            self.asked.append(tuple(input_ids.shape))
            self.threads.append(torch.get_num_threads())
            if input_ids.numel() > room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return forward(model, input_ids=input_ids, **inputs)

        monkeypatch.setattr(BertModel, "forward", limited)


def test_too_large_a_batch_is_halved_and_the_features_are_the_same(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = toy_dataset(train=100).train
    expected = Encoder(base, 24).features(train)
    memory = Memory(monkeypatch, room=20 * 24)
    seen: list[int] = []
    np.testing.assert_allclose(Encoder(base, 24).features(train, seen.append), expected, atol=1e-5)
    assert [size for size, _ in memory.asked[:2]] == [64, 32]
    assert sum(seen) == 100 and max(seen) <= 32


def test_where_one_example_is_too_much_it_is_said(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(monkeypatch, room=0)
    with pytest.raises(TrainingFailed, match="more memory than there is"):
        probe(base, toy_dataset(), max_length=24)
    assert [size for size, _ in memory.asked] == [64, 32, 16, 8, 4, 2, 1]


def test_long_texts_make_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tiny_model(tmp_path, "bert", length=4096)
    memory = Memory(monkeypatch, room=10**9)
    Encoder(long, 4096).features(toy_dataset(train=20).train)
    assert [size for size, _ in memory.asked] == [8, 8, 4]


def test_threads_are_those_that_this_process_has(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("coldfusion_shared.finetune.threads.cores_each", lambda: 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        memory = Memory(monkeypatch, room=10**9)
        probe(base, toy_dataset(), max_length=24)
    finally:
        torch.set_num_threads(before)
    assert set(memory.threads) == {1}


@pytest.mark.parametrize("threads", [1, 3])
def test_several_threads_compute_the_same(
    base: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr("coldfusion_shared.evaluate.features.scoring_batch", lambda _: 8)
    train = toy_dataset(pairs=True, train=90).train
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = Encoder(base, 24).features(train)
        torch.set_num_threads(threads)
        memory = Memory(monkeypatch, room=5 * 24)
        seen: list[int] = []
        found = Encoder(base, 24).features(train, seen.append)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert sum(seen) == 90 and max(seen) <= 8
    assert set(memory.threads) == {1}


def test_an_interruption_ends_all_threads_at_once(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coldfusion_shared.evaluate.features.scoring_batch", lambda _: 2)
    memory = Memory(monkeypatch, room=10**9)
    before = torch.get_num_threads()
    left = Event()

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            left.set()
            super().shutdown(wait, cancel_futures=cancel_futures)

    pooled = Encoder._pooled

    def waiting(encoder: Encoder, batch: Any) -> Any:
        # However late the interruption comes, the threads have not done all by then.
        if len(memory.asked) > 3:
            left.wait(120)
        return pooled(encoder, batch)

    monkeypatch.setattr(Encoder, "_pooled", waiting)
    monkeypatch.setattr("coldfusion_shared.evaluate.features.ThreadPoolExecutor", Pool)

    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt):
            Encoder(base, 24).features(toy_dataset(train=400).train, interrupt)
    finally:
        torch.set_num_threads(before)
    # Of 200 batches.
    assert len(memory.asked) < 100


def test_bf16_moves_features_a_little(base: Path) -> None:
    train = toy_dataset(train=30).train
    exact, quick = (Encoder(base, 24, name).features(train) for name in ("fp32", "bf16"))
    assert exact.dtype == quick.dtype == np.float32
    np.testing.assert_allclose(quick, exact, atol=0.05)
    assert not np.array_equal(quick, exact)


def test_it_computes_where_finetuning_does(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[Any] = []

    def to(model: Any, device: Any) -> Any:
        moved.append(device)
        return model

    monkeypatch.setattr("coldfusion_shared.finetune.precision.device_kind", lambda: "mps")
    monkeypatch.setattr(BertModel, "to", to)
    assert Encoder(base, 24).device == "mps" and moved == ["mps"]


def test_its_time_is_that_of_all_its_examples(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    pooled = Encoder._pooled

    def slow(encoder: Encoder, batch: Any) -> Any:
        # The first batch takes a while longer.
        now[0] += 0.5 * len(batch["input_ids"]) + (0 if now[0] else 100)
        return pooled(encoder, batch)

    monkeypatch.setattr(Encoder, "_pooled", slow)
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr(sys.modules["coldfusion_shared.evaluate.probe"], "time", clock)
    dataset = toy_dataset(train=100)
    assert probe_seconds(base, dataset, max_length=24) == pytest.approx(0.5 * (100 + 24 + 30))
