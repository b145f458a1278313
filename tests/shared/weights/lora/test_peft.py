"""Adapters that peft itself has written, against the model that peft itself has merged."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from coldfusion_shared.quiet import quiet_transformers
from coldfusion_shared.weights.body import align, body
from coldfusion_shared.weights.checkpoint import Checkpoint, FileSource
from coldfusion_shared.weights.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, open_adapter
from tests.shared.weights.lora.adapters import decoded, values_of
from tests.tiny_models import tiny_model

CLASSIFIER = "AutoModelForSequenceClassification"


@dataclass(frozen=True)
class Case:
    """
    One adapter.

    Attributes:
        kind: type of the base.
        head: transformers class that it is trained with.
        settings: of peft.
        changed: how many of the body's tensors it changes; the linear layers of two blocks.
    """

    kind: str
    head: str
    settings: dict[str, Any]
    changed: int


LINEAR = {"target_modules": "all-linear"}
CASES = {
    # Six in each block, and the pooler's.
    "bert": Case("bert", CLASSIFIER, LINEAR, 13),
    "bert-rslora": Case("bert", CLASSIFIER, {**LINEAR, "use_rslora": True}, 13),
    "bert-dora": Case("bert", CLASSIFIER, {**LINEAR, "use_dora": True}, 13),
    "bert-ranks": Case(
        "bert",
        CLASSIFIER,
        {
            "target_modules": ["query", "value", "output.dense"],
            "rank_pattern": {"query": 2, r"encoder.layer.1.attention.self.value": 7},
            "alpha_pattern": {r"layer.0.output.dense": 3},
        },
        8,
    ),
    "bert-embeddings": Case("bert", CLASSIFIER, {"target_modules": ["word_embeddings"]}, 1),
    "bert-dora-embeddings": Case(
        "bert", CLASSIFIER, {"target_modules": ["word_embeddings", "query"], "use_dora": True}, 3
    ),
    "bert-biases": Case("bert", CLASSIFIER, {"target_modules": ["query"], "bias": "lora_only"}, 4),
    # All biases of the body: eight in a block, the embeddings' and the pooler's.
    "bert-all-biases": Case("bert", CLASSIFIER, {"target_modules": ["query"], "bias": "all"}, 20),
    "bert-whole": Case(
        "bert",
        CLASSIFIER,
        {"target_modules": ["query"], "modules_to_save": ["classifier", "LayerNorm"]},
        12,
    ),
    "roberta": Case("roberta", CLASSIFIER, LINEAR, 12),
    "roberta-masked": Case("roberta", "AutoModelForMaskedLM", LINEAR, 12),
    "deberta": Case("deberta-v2", CLASSIFIER, LINEAR, 16),
    # In a block of the decoder the attention is there twice.
    "t5": Case("t5", "AutoModelForSeq2SeqLM", LINEAR, 32),
    "t5-dora": Case("t5", "AutoModelForSeq2SeqLM", {**LINEAR, "use_dora": True}, 32),
    "gpt2": Case("gpt2", CLASSIFIER, LINEAR, 8),
    "gpt2-dora": Case("gpt2", "AutoModelForCausalLM", {**LINEAR, "use_dora": True}, 8),
    "gpt2-square": Case("gpt2", "AutoModelForCausalLM", {"target_modules": ["attn.c_proj"]}, 2),
    "gpt2-with-head": Case("gpt2", CLASSIFIER, {"target_modules": ["attn.c_proj", "score"]}, 2),
    "llama": Case("llama", "AutoModelForCausalLM", LINEAR, 14),
    "llama-classifier": Case("llama", CLASSIFIER, {**LINEAR, "use_rslora": True}, 14),
    "qwen2": Case("qwen2", "AutoModelForCausalLM", {**LINEAR, "use_dora": True}, 14),
}


def trained(base: Path, case: Case, folder: Path) -> dict[str, Any]:
    """Write an adapter of random numbers to `folder`; return the tensors of the merged model."""
    quiet_transformers()
    model: Any = getattr(transformers, case.head).from_pretrained(base)
    config = LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, **case.settings)
    with warnings.catch_warnings():
        # About tied weights, and modules that keep their matrices the other way round.
        warnings.simplefilter("ignore")
        wrapped: Any = get_peft_model(model, config)
        with torch.no_grad():
            for parameter in wrapped.parameters():
                if parameter.requires_grad:
                    parameter += 0.05 * torch.randn_like(parameter)
        wrapped.save_pretrained(folder)
        merged = wrapped.merge_and_unload()
    return dict(merged.state_dict())


@pytest.mark.parametrize("name", CASES)
def test_merging_adds_our_update(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    base = Checkpoint.from_folder(tiny_model(tmp_path / "base", case.kind))
    merged = trained(tmp_path / "base", case, tmp_path / "adapter")
    update = open_adapter(
        (tmp_path / "adapter" / ADAPTER_CONFIG).read_bytes(),
        FileSource(tmp_path / "adapter" / ADAPTER_WEIGHTS),
        base.tensors,
    )
    assert len(update.names) == case.changed
    for ours, theirs in align(body(base.spans()), merged).items():
        moved = decoded(update, base, ours)
        expected = merged[theirs].double().numpy()
        # peft rounds each product and each sum to float32.
        room = 1e-6 * np.maximum(1, np.abs(expected))
        assert (np.abs(values_of(base, ours) + moved - expected) <= room).all(), ours
        assert bool(moved.any()) == (ours in update.names)
