from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from coldfusion_shared.data import Split
from coldfusion_shared.errors import BadModel
from coldfusion_shared.tasks import task_named
from coldfusion_shared.tasks.classification import _score
from coldfusion_shared.tasks.pretrained import load_model, load_tokenizer, longest_input
from tests.shared.tasks.rows import one_batch
from tests.tiny_models import ARCHITECTURES, tiny_bert, tiny_model
from tests.toy_data import toy_dataset

CLASSIFICATION = task_named("classification")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_bert(tmp_path / "base")


@pytest.mark.parametrize("pairs", [False, True])
def test_examples_become_padded_batches(base: Path, pairs: bool) -> None:
    dataset = toy_dataset(pairs=pairs)
    task, tokenizer = task_named(dataset.task), load_tokenizer(base)
    encoded = task.encode(tokenizer, dataset.train, 12)
    assert [example["labels"] for example in encoded] == list(dataset.train["label"])
    assert max(len(example["input_ids"]) for example in encoded) == 12
    assert (max(encoded[0]["token_type_ids"]) == 1) is pairs
    model = task.build_model(base, dataset)
    output = model(**task.collator(tokenizer, model)(list(encoded[:5])))
    assert output.logits.shape == (5, 2)
    assert output.loss.isfinite()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_padding_changes_nothing_of_what_a_decoder_makes_of_a_text(
    kind: str, side: str, tmp_path: Path
) -> None:
    dataset = toy_dataset()
    base = tiny_model(tmp_path, kind)
    tokenizer = load_tokenizer(base)
    tokenizer.padding_side = side
    model = CLASSIFICATION.build_model(base, dataset).eval()
    # As in the config of a base whose tokenizer has another padding token.
    model.config.pad_token_id = len(tokenizer) - 1
    examples = sorted(
        CLASSIFICATION.encode(tokenizer, dataset.train, 24), key=lambda one: len(one["input_ids"])
    )
    pair = [examples[0], examples[-1]]
    assert len(pair[0]["input_ids"]) < len(pair[1]["input_ids"])
    collate = CLASSIFICATION.collator(tokenizer, model)
    with torch.no_grad():
        together = model(**collate(pair)).logits
        alone = torch.cat([model(**collate([one])).logits for one in pair])
    torch.testing.assert_close(together, alone)


def test_scores_are_in_percent() -> None:
    outputs = np.array([[1.0, 0.0], [0.0, 1.0], [0.3, 0.2], [5.0, 6.0]])
    # Of 0: 1 of 1 found, 2 said. Of 1: 2 of 3 found, 2 said.
    expected = {
        "accuracy": 75.0,
        "macro F1": 100 * (2 / 3 + 4 / 5) / 2,
        "Matthews": 100 * 2 / math.sqrt(2 * 2 * 1 * 3),
    }
    truth = np.array([0, 1, 1, 1])
    assert _score(outputs, truth) == pytest.approx(expected)
    assert _score((outputs, "more"), truth) == pytest.approx(expected)
    assert _score(outputs[:1], truth[:1])["Matthews"] == 0


def test_scoring_is_by_length(base: Path) -> None:
    split = toy_dataset().test
    examples = CLASSIFICATION.scoring(load_tokenizer(base), split, 24).examples
    lengths = [len(example["input_ids"]) for example in examples]
    assert lengths == sorted(lengths) and len(lengths) == len(split)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_architecture_classifies(tmp_path: Path, kind: str) -> None:
    dataset = toy_dataset(pairs=True)
    output, _ = one_batch(tiny_model(tmp_path / kind, kind), dataset)
    assert output.logits.shape == (4, 2)
    assert output.loss.isfinite()


def test_a_text_of_ten_megabytes_is_cut_before_it_is_read(base: Path) -> None:
    long = Split({"text": ("the film was good " * 600_000,), "label": (1,)})
    assert len(long["text"][0]) > 10_000_000
    seen: list[int] = []

    class Watched:
        def __init__(self) -> None:
            self.real = load_tokenizer(base)

        def __call__(self, texts: list[str], pairs: Any, **options: Any) -> Any:
            seen.extend(map(len, texts))
            return self.real(texts, pairs, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    (example,) = CLASSIFICATION.encode(Watched(), long, 16)
    assert len(example["input_ids"]) == 16
    assert max(seen) < 10_000


def test_the_head_is_as_wide_as_there_are_labels(base: Path) -> None:
    three = replace(toy_dataset(), labels=("a", "b", "c"))
    model = CLASSIFICATION.build_model(base, three)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert model.config.label2id == {"a": 0, "b": 1, "c": 2}
    assert model.classifier.weight.shape == (3, 32)
    model.save_pretrained(base)
    # A base that still carries that head gets a fresh one.
    assert CLASSIFICATION.build_model(base, toy_dataset()).config.num_labels == 2


def test_inputs_are_no_longer_than_the_model_takes(base: Path) -> None:
    tokenizer, model = load_tokenizer(base), load_model("AutoModel", base)
    assert [longest_input(tokenizer, model, wanted) for wanted in (16, 9000)] == [16, 64]


def test_half_precision_is_widened(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    halves = {name: tensor.half() for name, tensor in weights.items()}
    save_file(halves, base / "model.safetensors", metadata={"format": "pt"})
    assert {str(p.dtype) for p in load_model("AutoModel", base).parameters()} == {"torch.float32"}


def test_a_pooler_may_be_missing_but_nothing_else(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    body = {name: tensor for name, tensor in weights.items() if not name.startswith("pooler")}
    save_file(body, base / "model.safetensors", metadata={"format": "pt"})
    load_model("AutoModel", base)
    name = "encoder.layer.1.output.dense.weight"
    del body[name]
    save_file(body, base / "model.safetensors", metadata={"format": "pt"})
    for auto_class in ("AutoModel", "AutoModelForSequenceClassification"):
        with pytest.raises(BadModel, match="lack .* 1 tensors") as caught:
            load_model(auto_class, base)
        assert [tensor.removeprefix("bert.") for tensor in caught.value.tensors] == [name]


def broken(base: Path, kind: str) -> None:
    if kind == "no config":
        (base / "config.json").unlink()
    elif kind == "unknown architecture":
        (base / "config.json").write_text('{"model_type": "abacus"}')
    elif kind == "no weights":
        (base / "model.safetensors").unlink()
    elif kind == "cut weights":
        content = (base / "model.safetensors").read_bytes()
        (base / "model.safetensors").write_bytes(content[:5000])
    elif kind == "a pickle":
        (base / "model.safetensors").rename(base / "pytorch_model.bin")


KINDS = ("no config", "unknown architecture", "no weights", "cut weights", "a pickle")


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_is_no_model(base: Path, kind: str) -> None:
    broken(base, kind)
    with pytest.raises(BadModel, match="transformers cannot load the model in") as caught:
        load_model("AutoModel", base)
    assert "\n" not in caught.value.message


def test_tokenizers_that_do_not_do(base: Path, tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="tokenizer"):
        load_tokenizer(tmp_path / "nowhere")
    config = json.loads((base / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(BadModel, match="no padding token"):
        load_tokenizer(base)
