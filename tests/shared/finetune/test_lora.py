"""Finetuning an adapter, and a part of a model: what learns, what is written, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.finetune import FinetuneResult, FinetuneSettings, checkpoints, finetune
from coldfusion_shared.finetune.frozen import closest, frozen_by, in_words_of, learning
from coldfusion_shared.finetune.settings import FULL_LR, LORA_LR
from coldfusion_shared.weights.checkpoint import Checkpoint, FileSource
from coldfusion_shared.weights.lora import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    LoraUpdate,
    open_adapter,
)
from coldfusion_shared.weights.write import match_body
from tests.shared.finetune.test_memory import Memory
from tests.shared.weights.lora.adapters import decoded, values_of
from tests.tiny_models import tiny_bert, tiny_model
from tests.toy_data import toy_dataset

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN: dict[str, Any] = {
    "epochs": 3, "batch_size": 8, "max_length": 24, "seed": 1, "early_stopping": False
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base"))


def run(base: Path, out: Path, **changed: Any) -> FinetuneResult:
    return finetune(base, toy_dataset(), FinetuneSettings(**{**PLAIN, **changed}), out)


def adapter_of(out: Path, base: Checkpoint) -> LoraUpdate:
    raw = (out / "adapter" / ADAPTER_CONFIG).read_bytes()
    return open_adapter(raw, FileSource(out / "adapter" / ADAPTER_WEIGHTS), base.tensors)


def test_an_adapter_learns(base: Path, tmp_path: Path) -> None:
    result = run(base, tmp_path / "out", lora=True, lr=3e-3, epochs=15)
    assert min(result.validation, result.test) > 80


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"rslora": True, "gradient_checkpointing": True},
        {"dora": True, "lora_rank": 3},
        {"precision": "bf16"},
    ],
)
def test_what_is_written_is_the_base_and_its_adapter(
    base: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    run(base, tmp_path / "out", lora=True, lr=1e-2, **changed)
    with Checkpoint.from_folder(base) as before, Checkpoint.from_folder(tmp_path / "out") as after:
        update = adapter_of(tmp_path / "out", before)
        # Six linear layers in each of two blocks, and the pooler's.
        assert len(update.names) == 13
        for name, tensor in match_body(after, before).items():
            moved = values_of(before, name) + decoded(update, before, name)
            found = tensor.values(0, tensor.span.elements).reshape(tensor.span.shape)
            assert np.abs(found - moved).max() < 1e-6
            assert (name in update.names) == (found != values_of(before, name)).any()
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.num_labels == 2


def test_the_adapter_tells_nothing_of_this_machine_and_has_no_head(
    base: Path, tmp_path: Path
) -> None:
    run(base, tmp_path / "out", lora=True, max_steps=1)
    folder = tmp_path / "out" / "adapter"
    assert sorted(path.name for path in folder.iterdir()) == [ADAPTER_CONFIG, ADAPTER_WEIGHTS]
    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    assert config["base_model_name_or_path"] is None
    assert config["target_modules"] == sorted(config["target_modules"])
    assert str(base) not in (folder / ADAPTER_CONFIG).read_text()
    assert (config["r"], config["lora_alpha"], config["inference_mode"]) == (8, 16, True)
    names = load_file(folder / ADAPTER_WEIGHTS)
    assert all(name.startswith("base_model.model.bert.") for name in names)
    assert all(".lora_A." in name or ".lora_B." in name for name in names)


# peft asks a model of transformers by a name that will be removed there.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_peft_loads_the_adapter(base: Path, tmp_path: Path) -> None:
    run(base, tmp_path / "out", lora=True, lr=1e-2)
    plain = AutoModelForSequenceClassification.from_pretrained(base)
    wrapped: Any = PeftModel.from_pretrained(plain, str(tmp_path / "out" / "adapter"))
    merged = wrapped.merge_and_unload().state_dict()
    written = load_file(tmp_path / "out" / "model.safetensors")
    for name, value in written.items():
        if name.startswith("bert."):
            assert torch.allclose(merged[name], value, atol=1e-6)


@pytest.mark.parametrize("kind", ["t5", "gpt2", "llama", "qwen2", "roberta", "deberta-v2"])
def test_every_architecture_has_an_adapter_of_its_body(kind: str, tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", kind)
    run(base, tmp_path / "out", lora=True, lr=1e-2, max_steps=2, lora_rank=4)
    with Checkpoint.from_folder(base) as before, Checkpoint.from_folder(tmp_path / "out") as after:
        update = adapter_of(tmp_path / "out", before)
        assert len(update.names) >= 8
        for name, tensor in match_body(after, before).items():
            found = tensor.values(0, tensor.span.elements).reshape(tensor.span.shape)
            moved = values_of(before, name) + decoded(update, before, name)
            assert np.abs(found - moved).max() < 1e-6, name


def changed_tensors(base: Path, out: Path) -> set[str]:
    """Return the names of the body's tensors that are not bit for bit the base's."""
    before, after = (load_file(folder / "model.safetensors") for folder in (base, out))
    return {name for name in before if not torch.equal(before[name], after[f"bert.{name}"])}


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize(
    "patterns",
    [
        ("embeddings", "layer.[0]", "pooler.dense.weight"),
        # As the finetuned model calls them.
        ("bert.embeddings", "bert.encoder.layer.0", "*.pooler.dense.weight"),
    ],
)
def test_frozen_layers_stay_bit_for_bit(
    base: Path, tmp_path: Path, patterns: tuple[str, ...], lora: bool
) -> None:
    run(base, tmp_path / "out", lora=lora, lr=1e-2, freeze=patterns)
    changed = changed_tensors(base, tmp_path / "out")
    kept = ("embeddings.", "encoder.layer.0.", "pooler.dense.weight")
    assert changed
    assert not any(name.startswith(kept) for name in changed)
    assert ("pooler.dense.bias" in changed) == (not lora)
    names = {name for name in changed if name.startswith("encoder.layer.1.")}
    # All of a block's weights and biases, or its linear layers' weights.
    assert len(names) == (6 if lora else 16)


def test_targets_are_the_ends_of_names(base: Path, tmp_path: Path) -> None:
    run(base, tmp_path / "out", lora=True, lr=1e-2, lora_targets="query, 1.output.dense")
    assert changed_tensors(base, tmp_path / "out") == {
        "encoder.layer.0.attention.self.query.weight",
        "encoder.layer.1.attention.self.query.weight",
        "encoder.layer.1.output.dense.weight",
    }


def test_embeddings_can_be_adapted(base: Path, tmp_path: Path) -> None:
    run(base, tmp_path / "out", lora=True, lr=1e-2, lora_targets=("word_embeddings",))
    assert changed_tensors(base, tmp_path / "out") == {"embeddings.word_embeddings.weight"}
    with Checkpoint.from_folder(base) as before:
        assert adapter_of(tmp_path / "out", before).names == ("embeddings.word_embeddings.weight",)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("changed", [{"lora": True}, {"freeze": ("embeddings",)}])
def test_resumed_it_ends_with_the_very_same_weights(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)
    settings = FinetuneSettings(**{**PLAIN, **changed, "lr": 5e-3, "early_stopping": True})
    sizes, steps = [], []

    def stop(done: int, total: int, loss: float) -> None:
        steps.append(done)
        if done == 13 and len(steps) == 13:
            sizes.extend(_weights(tmp_path / "checkpoints"))
            raise Stopped

    def train(name: str, progress: Any = lambda *_: None) -> dict[str, bytes]:
        folder = tmp_path / name
        finetune(
            base, toy_dataset(), settings, folder, progress, checkpoints=tmp_path / "checkpoints"
        )
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.safetensors")}

    with pytest.raises(Stopped):
        train("killed", stop)
    assert steps[-1] == 13
    resumed = train("resumed", stop)
    # The one of step 12.
    assert steps[13] == 13
    assert len(resumed) == (2 if "lora" in changed else 1)
    assert resumed == train("undisturbed")
    # What stays as it is is not written either.
    whole = (base / "model.safetensors").stat().st_size
    assert sizes and max(sizes) < (0.7 if "lora" in changed else 0.95) * whole


def _weights(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.glob("*/model.safetensors")]


def test_too_large_a_batch_is_halved(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, said = Memory(monkeypatch, training=3, scoring=30), list[str]()
    settings = FinetuneSettings(**{**PLAIN, "epochs": 1}, lora=True)
    finetune(base, toy_dataset(), settings, tmp_path / "out", say=said.append)
    assert memory.asked[:3] == [8, 4, 2]
    assert said[-1].startswith("The memory does not suffice: going on with 2 examples at a time.")
    assert (tmp_path / "out" / "adapter" / ADAPTER_WEIGHTS).is_file()


@pytest.mark.parametrize(
    ("changed", "sentence", "hint"),
    [
        ({"lora": True, "lora_targets": "queri"}, "called 'queri'", "query"),
        ({"lora": True, "lora_targets": "query,q_proj"}, "called 'q_proj'", "There are "),
        ({"lora": True, "lora_targets": "LayerNorm"}, "takes no adapter", "There are "),
        ({"lora": True, "lora_targets": "classifier"}, "called 'classifier'", "There are "),
        ({"lora": True, "lora_rank": 33}, "adapter of rank 33", "smaller rank"),
        (
            {"lora": True, "lora_rank": 17, "lora_targets": "query"},
            "With rank 17 the adapter of bert.encoder.layer.0.attention.self.query would have more",
            "16 or less",
        ),
        ({"lora": True, "dora": True, "freeze": "embedings"}, "called 'embedings'", "embeddings"),
        ({"freeze": "bert.embedings"}, "called 'bert.embedings'", "There are embeddings"),
        ({"freeze": "roberta.embeddings"}, "called 'roberta.embeddings'", "embeddings"),
        ({"freeze": "bert"}, "called 'bert'", "There are "),
        ({"freeze": "classifier"}, "called 'classifier'", "There are "),
        ({"freeze": "*"}, "whole body would be frozen", "less"),
        ({"lora": True, "lora_targets": "query", "freeze": "query"}, "could learn", "There are"),
        ({"lora": True, "freeze": "dense,query,key,value"}, "adapter of rank 8", "freeze less"),
    ],
)
def test_settings_that_do_not_fit_the_model(
    base: Path, tmp_path: Path, changed: dict[str, Any], sentence: str, hint: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        run(base, tmp_path / "out", **changed)
    assert sentence in caught.value.message
    assert hint in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


def test_an_embedding_that_is_the_head_too_is_not_adapted(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", "roberta")
    texts = replace(toy_dataset(), task="masked-language-modelling", labels=())
    settings = FinetuneSettings(**PLAIN, lora=True, lora_targets=("word_embeddings",))
    with pytest.raises(InvalidRequest, match="shares its weights with another module"):
        finetune(base, texts, settings, tmp_path / "out")


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"lora_rank": 4}, "lora_rank"),
        ({"lora_alpha": 4}, "lora_alpha"),
        ({"lora_targets": "query"}, "lora_targets"),
        ({"rslora": True}, "rslora"),
        ({"dora": True}, "dora"),
        ({"lora": False, "dora": True}, "dora"),
        ({"lora": True, "lora_rank": 0}, "lora_rank"),
        ({"lora": True, "lora_targets": ""}, "lora_targets"),
        ({"lora": True, "lora_targets": "all-linear,query"}, "lora_targets"),
        ({"freeze": ("",)}, "freeze"),
        ({"freeze": ","}, "freeze"),
    ],
)
def test_settings_that_make_no_sense_together(changed: dict[str, Any], name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        FinetuneSettings(**changed)
    assert [error["loc"] for error in caught.value.errors()] == [(name,)]


def test_settings_that_make_sense() -> None:
    plain = FinetuneSettings(rslora=False, dora=False, lora=False)
    assert (plain.lr, plain.learning_rate) == (None, FULL_LR)
    assert (plain.rank, plain.alpha, plain.targets) == (8, 16, ("all-linear",))
    assert FinetuneSettings(lora=True).learning_rate == LORA_LR
    assert FinetuneSettings(lora=True, lr=1e-3).learning_rate == 1e-3
    given: dict[str, Any] = {"lora": True, "freeze": "a, b.c ", "lora_targets": ["a"]}
    chosen = FinetuneSettings(**given)
    assert (chosen.freeze, chosen.lora_targets) == (("a", "b.c"), ("a",))


NAMES = ("encoder.layer.0.query.weight", "encoder.layer.10.query.weight", "embeddings.w.weight")


@pytest.mark.parametrize(
    ("pattern", "count"),
    [("embeddings", 1), ("layer.1", 0), ("layer.1?", 1), ("encoder.layer.[0-9]", 1), ("query", 2),
     ("layer.*.query", 2), ("weigh", 0), (NAMES[0], 1)],
)  # fmt: skip
def test_patterns_stand_for_whole_parts_of_names(pattern: str, count: int) -> None:
    names = {name: f"bert.{name}" for name in NAMES}
    if count:
        found = frozen_by([pattern], names)
        assert found <= set(names.values()) and len(found) == count
    else:
        with pytest.raises(InvalidRequest):
            frozen_by([pattern], names)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [("bert.embeddings", 1), ("bert.encoder.layer.1?", 1), ("*.embeddings.w", 1), ("bert.query", 0),
     (f"bert.{NAMES[0]}", 1), ("other.embeddings", 0), ("bert", 0)],
)  # fmt: skip
def test_patterns_may_be_in_the_finetuned_models_words(pattern: str, count: int) -> None:
    names = {name: f"bert.{name}" for name in NAMES}
    if count:
        assert frozen_by([pattern], names) == frozen_by(in_words_of(NAMES, [pattern]), names)
        assert len(frozen_by([pattern], names)) == count
    else:
        with pytest.raises(InvalidRequest):
            frozen_by([pattern], names)


def test_patterns_are_turned_into_the_bases_words() -> None:
    given = ("query", "bert.embeddings", "bert.encoder.layer.1?", "*.query", "bert", "nothing.here")
    assert in_words_of(NAMES, given) == (
        "query", "embeddings", "encoder.layer.1?", "*.query", "bert", "nothing.here",
    )  # fmt: skip
    # Some models call their body otherwise under a head.
    assert frozen_by(["model.h.0"], {"transformer.h.0.w": "model.h.0.w", "n": "m"}) == {
        "model.h.0.w"
    }


def test_the_closest_names_are_told() -> None:
    assert closest("embedding", NAMES)[0] == "embeddings"
    assert closest("zzz", NAMES) == ["embeddings.w", "encoder.layer.0.query",
                                     "encoder.layer.10.query"]  # fmt: skip


def test_what_learns_has_its_buffers() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    assert learning(model).keys() == model.state_dict().keys()
    model[0].requires_grad_(False)
    assert set(learning(model)) == {name for name in model.state_dict() if name.startswith("1.")}
