from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from coldfusion_shared.errors import BadData, BadModel, UnknownName
from coldfusion_shared.tasks import choose_task
from coldfusion_shared.tasks.pretrained import load_model, load_tokenizer, longest_input
from tests.tiny_models import tiny_bert
from tests.toy_data import toy_dataset


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_bert(tmp_path / "base")


def test_the_task_is_chosen_by_the_data_or_by_name() -> None:
    dataset = toy_dataset()
    assert choose_task(dataset).name == "classification"
    assert choose_task(dataset, "classification").metric == "accuracy"
    with pytest.raises(UnknownName, match="'juggling'"):
        choose_task(dataset, "juggling")
    with pytest.raises(BadData, match="No kind of task fits"):
        choose_task(replace(dataset, labels=("only",)))


@pytest.mark.parametrize("pairs", [False, True])
def test_examples_become_padded_batches(base: Path, pairs: bool) -> None:
    dataset = toy_dataset(pairs=pairs)
    task, tokenizer = choose_task(dataset), load_tokenizer(base)
    encoded = task.encode(tokenizer, dataset.train, 12)
    assert [example["labels"] for example in encoded] == list(dataset.train.labels)
    assert max(len(example["input_ids"]) for example in encoded) == 12
    assert (max(encoded[0]["token_type_ids"]) == 1) is pairs
    batch = task.collator(tokenizer)(list(encoded[:5]))
    output = task.build_model(base, dataset)(**batch)
    assert output.logits.shape == (5, 2)
    assert output.loss.isfinite()


def test_accuracy_is_in_percent() -> None:
    outputs = np.array([[1.0, 0.0], [0.0, 1.0], [0.3, 0.2], [5.0, 6.0]])
    assert choose_task(toy_dataset()).score(outputs, np.array([0, 1, 1, 1])) == 75.0


def test_the_head_is_as_wide_as_there_are_labels(base: Path) -> None:
    three = replace(toy_dataset(), labels=("a", "b", "c"))
    model = choose_task(three).build_model(base, three)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert model.config.label2id == {"a": 0, "b": 1, "c": 2}
    assert model.classifier.weight.shape == (3, 32)
    model.save_pretrained(base)
    # A base that still carries that head gets a fresh one.
    assert choose_task(toy_dataset()).build_model(base, toy_dataset()).config.num_labels == 2


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
