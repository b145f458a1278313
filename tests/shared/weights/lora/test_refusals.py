"""What is no adapter, or no adapter of this base, is refused, and the tensor at fault is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft.utils.other import get_pattern_key

from coldfusion_shared.errors import BadModel, IncompatibleWeights, MalformedWeights
from coldfusion_shared.weights.checkpoint import Checkpoint, FileSource
from coldfusion_shared.weights.lora import config as configuration
from coldfusion_shared.weights.lora import match, open_adapter
from coldfusion_shared.weights.lora.config import parse_config
from tests.shared.checkpoints import Array, Tensors
from tests.shared.weights.lora.adapters import adapter, base_of, normal, opened, pair, settings

RNG = np.random.default_rng(0)
GOOD = pair("encoder.wide", 20, 12)
A, B = (f"encoder.wide.lora_{kind}.weight" for kind in "AB")


@pytest.fixture
def base(tmp_path: Path) -> Checkpoint:
    return base_of(tmp_path)


def refused(folder: Path, base: Checkpoint, tensors: Tensors, **changed: Any) -> str:
    """Return what is said to an adapter that does not fit."""
    with pytest.raises(IncompatibleWeights) as caught:
        adapter(folder, settings(**changed), tensors, base)
    assert caught.value.hint
    assert caught.value.tensors or "nothing" in caught.value.message
    return caught.value.message


def zeros(*shape: int, dtype: Any = np.float32) -> Array:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({A: zeros(3, 20), B: zeros(12, 3)}, "rank 3 of A, 3 of B, 4 in its configuration"),
        ({A: zeros(3, 20)}, "rank 3 of A, 4 of B"),
        ({A: zeros(0, 20), B: zeros(12, 0)}, "rank 0 for a matrix of [12, 20]"),
        ({A: zeros(4, 21)}, "factors [4, 21] and [12, 4] for [12, 20]"),
        ({A: zeros(4, 20, 1, 1), B: zeros(12, 4, 1, 1)}, "are no matrices"),
        ({A: zeros(4, 20, dtype=np.int8)}, "is I8, not floating-point"),
        ({A: None}, "it has no A"),
        ({B: None}, "it has A without B"),
        ({"encoder.wide.lora_embedding_A": zeros(4, 20)}, "those of an embedding"),
        ({"encoder.wide.lora_magnitude_vector": zeros(12)}, "its configuration is not DoRA's"),
        ({"encoder.wide.weight": zeros(12, 20)}, "both replaced and added to"),
        ({"encoder.norm.weight": zeros(13)}, "F32 [13] for F32 [12]"),
        ({"encoder.norm.weight": zeros(12, dtype=np.float16)}, "F16 [12] for F32 [12]"),
        ({"encoder.narrow.weight": zeros(3)}, "encoder.narrow.weight: the base has no such tensor"),
        ({"encoder.wide.token_adapter.trainable_tokens_delta": zeros(3)}, "no such tensor"),
    ],
)
def test_tensors_that_do_not_fit(
    tmp_path: Path, base: Checkpoint, changed: dict[str, Array | None], expected: str
) -> None:
    tensors = {name: value for name, value in (GOOD | changed).items() if value is not None}
    message = refused(tmp_path, base, tensors)
    assert message.startswith("The adapter does not fit the base: encoder.")
    assert expected in message


def test_a_rank_above_the_matrix(tmp_path: Path, base: Checkpoint) -> None:
    assert "rank 13 for a matrix of [12, 20]" in refused(
        tmp_path, base, pair("encoder.wide", 20, 12, rank=13), r=13
    )


def test_factors_with_more_values_than_their_matrix(tmp_path: Path, base: Checkpoint) -> None:
    # 7 * (20 + 12) is 224 of 240.
    adapter(tmp_path, settings(r=7), pair("encoder.wide", 20, 12, rank=7), base)
    tensors = pair("encoder.wide", 20, 12, rank=8)
    with pytest.raises(IncompatibleWeights) as caught:
        adapter(tmp_path, settings(r=8), tensors, base)
    assert "rank 8 for a matrix of [12, 20]: its factors have more" in caught.value.message
    assert caught.value.hint is not None and "merge_and_unload" in caught.value.hint


def test_all_faults_are_told_at_once(tmp_path: Path, base: Checkpoint) -> None:
    tensors = {**GOOD, **{f"other.{i}.weight": zeros(2) for i in range(5)}, A: zeros(4, 7)}
    message = refused(tmp_path, base, tensors)
    assert message.count("the base has no such tensor") == 3
    assert message.endswith("; and 3 more.")


def test_another_base(tmp_path: Path, base: Checkpoint) -> None:
    tensors = pair("model.layers.0.self_attn.q_proj", 12, 12)
    assert "layers.0.self_attn.q_proj.weight: the base has no such" in refused(
        tmp_path, base, tensors
    )


def test_names_of_two_kinds(tmp_path: Path, base: Checkpoint) -> None:
    tensors = {**pair("bert.encoder.wide", 20, 12), **pair("bert.encoder.square", 12, 12), **GOOD}
    assert "fit the base: encoder.wide.weight: the base" in refused(tmp_path, base, tensors)


def test_dora_needs_its_magnitudes(tmp_path: Path, base: Checkpoint) -> None:
    assert "magnitudes are missing" in refused(tmp_path, base, GOOD, use_dora=True)
    tensors = {**GOOD, "encoder.wide.lora_magnitude_vector": zeros(20)}
    assert "magnitudes [20] for 12 outputs" in refused(tmp_path, base, tensors, use_dora=True)


def test_biases_that_were_trained_and_not_saved(tmp_path: Path, base: Checkpoint) -> None:
    assert "biases that were trained are not in the file" in refused(
        tmp_path, base, GOOD, bias="all"
    )


def test_two_tensors_for_one_module(tmp_path: Path, base: Checkpoint) -> None:
    tensors = {**GOOD, "encoder.wide.lora_magnitude_vector": zeros(12)}
    tensors["encoder.wide.lora_magnitude_vector.weight"] = zeros(12)
    assert "two tensors for 'encoder.wide.weight'" in refused(
        tmp_path, base, tensors, use_dora=True
    )


@pytest.mark.parametrize("name", ["lora_B.bias", "lora_A.default.weight", "lora_arrow.x.weight"])
def test_tensors_of_unknown_kinds(tmp_path: Path, base: Checkpoint, name: str) -> None:
    tensors = {**GOOD, f"encoder.wide.{name}": zeros(12)}
    assert "cannot be read as an update" in refused(tmp_path, base, tensors)


def test_heads_alone_are_nothing_to_share(tmp_path: Path, base: Checkpoint) -> None:
    assert "changes nothing of the base's body" in refused(
        tmp_path, base, {"classifier.weight": zeros(2, 12), **pair("score", 12, 2)}
    )


def test_a_square_matrix_that_may_lie_either_way(tmp_path: Path) -> None:
    shapes = {"up.weight": (12, 20), "up.bias": (20,), "down.weight": (20, 12), "down.bias": (20,)}
    tensors = {name: normal(RNG, shape) for name, shape in shapes.items()}
    both = opened(tmp_path, {**tensors, "across.weight": normal(RNG, (12, 12))})
    assert "which way round" in refused(tmp_path, both, pair("across", 12, 12))


def test_factors_that_ask_for_too_much_memory(
    tmp_path: Path, base: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(match, "MAX_FACTOR_VALUES", 127)
    assert "128 values in its factors; 127 are the limit" in refused(tmp_path, base, GOOD)


@pytest.mark.parametrize("name", ["m{}.weight", "encoder.m{}.weight"])
def test_names_without_end(tmp_path: Path, base: Checkpoint, name: str) -> None:
    tensors = {name.format(i): zeros(1) for i in range(300)}
    assert "nothing like that belongs to a base of 6" in refused(tmp_path, base, tensors)


def test_weights_that_are_no_safetensors(tmp_path: Path, base: Checkpoint) -> None:
    (tmp_path / "weights").write_bytes(b"PK\x03\x04" * 10)
    raw = b'{"peft_type": "LORA", "r": 4, "lora_alpha": 8}'
    with pytest.raises(MalformedWeights):
        open_adapter(raw, FileSource(tmp_path / "weights"), base.tensors)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"peft_type": "LOHA"}, "of type 'LOHA'; only LORA is taken"),
        ({"peft_type": None}, "of type None"),
        ({"r": 0}, "impossible rank for 'r': 0"),
        ({"r": True}, "impossible rank"),
        ({"r": 4.0}, "impossible rank"),
        ({"rank_pattern": {"query": -1}}, "impossible rank for 'query'"),
        ({"rank_pattern": ["query"]}, "rank_pattern that is no object"),
        ({"lora_alpha": float("nan")}, "alpha for 'lora_alpha' that is no number"),
        ({"lora_alpha": float("inf")}, "no number"),
        ({"lora_alpha": "16"}, "no number"),
        ({"lora_alpha": 10**400}, "no number"),
        ({"lora_alpha": 1e39}, "no float32 holds"),
        ({"alpha_pattern": {"query": -1e300}}, "no float32 holds"),
        ({"use_rslora": "yes"}, "neither true nor false"),
        ({"bias": "some"}, "unknown bias"),
        ({"init_lora_weights": "pissa"}, "begun with 'pissa', which changes the base"),
        ({"init_lora_weights": "pissa_niter_16"}, "changes the base"),
        ({"init_lora_weights": "olora"}, "changes the base"),
        ({"init_lora_weights": "loftq"}, "changes the base"),
        ({"init_lora_weights": "corda"}, "changes the base"),
        ({"init_lora_weights": "lora_ga"}, "changes the base"),
        ({"use_qalora": True}, "uses 'use_qalora'"),
        ({"layer_replication": [[0, 4], [2, 5]]}, "uses 'layer_replication'"),
        ({"megatron_config": {"x": 1}}, "uses 'megatron_config'"),
        ({"lora_bias": True}, "uses 'lora_bias'"),
        ({"target_parameters": ["experts.down_proj"]}, "uses 'target_parameters'"),
        ({"alora_invocation_tokens": [1, 2]}, "uses 'alora_invocation_tokens'"),
        ({"trainable_token_indices": [3]}, "uses 'trainable_token_indices'"),
        ({"kasa_config": {"beta": 1}}, "uses 'kasa_config'"),
        ({"of_the_future": 3}, "uses 'of_the_future'"),
    ],
)
def test_configurations_that_are_not_taken(changed: dict[str, Any], expected: str) -> None:
    with pytest.raises(BadModel) as caught:
        parse_config(json.dumps(settings(**changed)).encode())
    assert expected in caught.value.message


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"\xff", b"{", b"[" * 100_000, b'{"r": 1, "r": 2}', b'{"r": 1' + b"0" * 5000,
     b" " * (configuration.MAX_CONFIG_BYTES + 1)],
)  # fmt: skip
def test_what_is_no_configuration(raw: bytes) -> None:
    with pytest.raises(BadModel, match="adapter_config.json"):
        parse_config(raw)


@pytest.mark.parametrize("pattern", ["q{}", "q{}.*"])
def test_patterns_without_end(pattern: str) -> None:
    patterns = {pattern.format(i): 4 for i in range(3000 if pattern == "q{}" else 40)}
    with pytest.raises(BadModel, match="alpha_pattern"):
        parse_config(json.dumps(settings(alpha_pattern=patterns)).encode())


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+", "(a|a)(a|a)(a|a)", ".*.*", "a{1,9}", "(?i)query", "(", "[", "a" * 501, "a**",
     "|".join("a" * 40), r"(a)\1", "a)|(b", "a)"],
)  # fmt: skip
def test_patterns_that_could_take_forever(pattern: str) -> None:
    with pytest.raises(BadModel, match="that is not taken"):
        parse_config(json.dumps(settings(rank_pattern={pattern: 4})).encode())


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("query", True),
        ("layer.1.attention.self.query", True),
        (r"encoder\.layer\.[01]\..*query", True),
        ("^bert.encoder.layer.1.attention.self.query", True),
        (r"layer.\d.attention.self.(query|value)", True),
        ("uery", False),
        ("layer.0.attention.self.query", False),
    ],
)
def test_patterns_are_pefts(pattern: str, fits: bool) -> None:
    module = "bert.encoder.layer.1.attention.self.query"
    config = parse_config(json.dumps(settings(rank_pattern={pattern: 9})).encode())
    assert config.of(module) == ((9, 8 / 9) if fits else (4, 2))
    assert (get_pattern_key([pattern], module) == pattern) == fits
