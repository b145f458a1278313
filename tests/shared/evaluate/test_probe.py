from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel, AutoTokenizer

from coldfusion_shared.data import Split
from coldfusion_shared.errors import BadModel
from coldfusion_shared.evaluate import probe
from coldfusion_shared.evaluate.features import Encoder
from coldfusion_shared.evaluate.probe import fit_probe
from coldfusion_shared.finetune import FinetuneSettings, finetune
from tests.tiny_models import ARCHITECTURES, tiny_bert, tiny_model
from tests.toy_data import toy_dataset


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base"))


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


def test_a_probe_is_a_logistic_regression_on_them(base: Path) -> None:
    dataset = toy_dataset(train=40)
    result = probe(base, dataset, max_length=24, seed=3)
    scaler = StandardScaler().fit(plain_features(base, dataset.train, 24))
    x = {
        name: scaler.transform(plain_features(base, getattr(dataset, name), 24))
        for name in ("train", "validation", "test")
    }
    plain = LogisticRegression(C=result.strength, max_iter=2000)
    plain.fit(x["train"], dataset.train["label"])
    assert result.accuracy == pytest.approx(100 * plain.score(x["test"], dataset.test["label"]))
    assert result.examples == 30
    assert probe(base, dataset, max_length=24, seed=3) == result


def part(rng: np.random.Generator, size: int, noise: float) -> tuple[Any, Any]:
    labels = np.arange(size) % 3
    clean = np.eye(3)[labels] @ np.ones((3, 8)) + np.eye(3, 8)[labels]
    return (clean + noise * rng.standard_normal(clean.shape)).astype(np.float32), labels


def test_strength_is_chosen_on_validation_never_on_test() -> None:
    rng = np.random.default_rng(0)
    train, validation = part(rng, 90, 0.3), part(rng, 60, 0.3)
    good, bad = part(rng, 60, 0.3), part(rng, 60, 30.0)
    first, second = (fit_probe(train, validation, test, seed=1) for test in (good, bad))
    assert first.strength == second.strength
    assert first.accuracy > 80 > second.accuracy


def test_a_feature_that_never_changes_and_a_label_that_train_lacks_do_no_harm() -> None:
    rng = np.random.default_rng(0)
    train, validation, test = part(rng, 60, 0.1), part(rng, 30, 0.1), part(rng, 30, 0.1)
    for features, _ in (train, validation, test):
        features[:, 0] = 7
    train = (train[0][train[1] < 2], train[1][train[1] < 2])
    assert fit_probe(train, validation, test, seed=1).accuracy == pytest.approx(66.7, abs=0.1)


def test_finetuning_on_a_task_makes_its_body_better_to_probe(base: Path, tmp_path: Path) -> None:
    dataset = toy_dataset(train=32)
    settings = FinetuneSettings(epochs=15, lr=3e-3, max_length=24, early_stopping=False)
    finetune(base, dataset, settings, tmp_path / "tuned", lambda *_: None)
    before, after = (
        probe(folder, dataset, max_length=24, seed=1).accuracy
        for folder in (base, tmp_path / "tuned")
    )
    assert after >= before
    assert after > 90


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(BadModel):
        probe(tmp_path, toy_dataset(), max_length=24, seed=1)
