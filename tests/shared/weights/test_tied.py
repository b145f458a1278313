"""Which tensors of a file are one parameter, and which only look alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldfusion_shared.errors import BadModel
from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS, Checkpoint
from coldfusion_shared.weights.tied import SAMPLE_ELEMENTS, fused_tensors, tied_groups, together_in
from coldfusion_shared.weights.write import match_body
from tests.shared.checkpoints import BFLOAT16, Array, Tensors, write_file

rng = np.random.default_rng(11)


def floats(*shape: int, dtype: Any = np.float32) -> Array:
    return np.asarray(rng.standard_normal(shape)).astype(dtype)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path


def opened(folder: Path, tensors: Tensors, name: str = "model") -> Checkpoint:
    return Checkpoint.from_file(write_file(folder / f"{name}.safetensors", tensors))


def groups(folder: Path, tensors: Tensors) -> list[list[str]]:
    with opened(folder, tensors) as model:
        return tied_groups(model.tensors)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, BFLOAT16], ids=str)
def test_equal_matrices_are_one_parameter(dtype: Any, folder: Path) -> None:
    one, other = floats(7, 5, dtype=dtype), floats(7, 5, dtype=dtype)
    tensors = {"a": one, "x": other, "b": one, "y": other, "c": one, "z": floats(7, 5, dtype=dtype)}
    assert groups(folder, tensors) == [["a", "b", "c"], ["x", "y"]]


def test_matrices_that_differ_in_one_bit_are_not(folder: Path) -> None:
    one = floats(3, CHUNK_ELEMENTS)
    for place in (0, SAMPLE_ELEMENTS - 1, SAMPLE_ELEMENTS, one.size - 1):
        other = one.copy()
        other.reshape(-1)[place] = np.nextafter(other.reshape(-1)[place], np.float32(9))
        assert groups(folder, {"a": one, "b": other}) == []
        assert groups(folder, {"a": one, "b": other, "c": one}) == [["a", "c"]]


def test_the_same_bytes_in_another_shape_or_dtype_are_not(folder: Path) -> None:
    one = floats(4, 6)
    assert groups(folder, {"a": one, "b": one.reshape(6, 4), "c": one.reshape(4, 3, 2)}) == []
    assert groups(folder, {"a": one, "b": one.view(np.int32), "c": one.view(np.uint32)}) == []


@pytest.mark.parametrize(
    "array",
    [floats(5), np.float32(2), np.zeros((4, 4), np.float32), np.zeros((0, 4), np.float32),
     np.arange(6).reshape(2, 3), np.ones((2, 2), np.bool_)],
    ids=["vector", "scalar", "zeros", "empty", "integers", "booleans"],
)  # fmt: skip
def test_what_agrees_by_chance_is_not_tied(array: Any, folder: Path) -> None:
    assert groups(folder, {"a": np.asarray(array), "b": np.asarray(array)}) == []


@pytest.mark.parametrize("value", [1, 0.02, -0.0])
def test_fresh_constants_agree_by_chance_too(value: float, folder: Path) -> None:
    ones = np.full((1, 8), value, np.float32)
    assert groups(folder, {"layer.0.scale": ones, "layer.1.scale": ones}) == []


def test_large_tied_matrices_are_found_over_many_chunks(folder: Path) -> None:
    one = floats(3, CHUNK_ELEMENTS + 5)
    assert groups(folder, {"a": one, "b": one}) == [["a", "b"]]


# What of a base is fused.


def test_of_tied_tensors_the_first_of_the_body_is_fused(folder: Path) -> None:
    embeddings, own = floats(6, 4), floats(4, 4)
    tensors = {
        "lm_head.weight": embeddings,
        "encoder.embed.weight": embeddings,
        "encoder.dense.weight": own,
        "decoder.embed.weight": embeddings,
        "classifier.weight": own,
        "score.weight": floats(6, 4),
        "position_ids": np.arange(3),
    }
    with opened(folder, tensors) as base:
        found = fused_tensors(base, ())
    assert list(found.spans) == ["encoder.embed.weight", "encoder.dense.weight"]
    assert found.tied == {
        "lm_head.weight": "encoder.embed.weight",
        "decoder.embed.weight": "encoder.embed.weight",
        "classifier.weight": "encoder.dense.weight",
    }


def test_heads_that_are_tied_among_themselves_are_left_alone(folder: Path) -> None:
    head = floats(6, 4)
    tensors = {"lm_head.weight": head, "score.weight": head, "encoder.weight": floats(6, 4)}
    with opened(folder, tensors) as base:
        found = fused_tensors(base, ())
    assert list(found.spans) == ["encoder.weight"] and found.tied == {}


@pytest.mark.parametrize(
    "tensors",
    [{}, {"classifier.weight": floats(2, 2)}, {"encoder.ids": np.arange(3)},
     {"encoder.weight": np.zeros((0, 3), np.float32)}],
    ids=["nothing", "a head", "integers", "empty"],
)  # fmt: skip
def test_a_base_with_nothing_to_fuse_is_refused(tensors: dict[str, Array], folder: Path) -> None:
    with opened(folder, tensors) as base, pytest.raises(BadModel, match="no floating-point"):
        fused_tensors(base, ())


# Contributions that hold a tied tensor under some of its names.

NAMES = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


@pytest.mark.parametrize("kept", [NAMES[:1], NAMES[1:2], NAMES[2:], NAMES[:2], NAMES], ids=str)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_tied_tensor_is_found_under_any_of_its_names(
    kept: tuple[str, ...], prefix: str, folder: Path
) -> None:
    embeddings, finetuned = floats(6, 4), floats(6, 4)
    base = {**dict.fromkeys(NAMES, embeddings), "encoder.dense.weight": floats(4, 4)}
    model = {f"{prefix}encoder.dense.weight": floats(4, 4)}
    model |= {f"{prefix}{name}": finetuned for name in kept}
    with opened(folder, base) as ours, opened(folder, model, "finetuned") as theirs:
        matched = match_body(theirs, ours)
        assert set(matched) == set(base)
        for name in NAMES:
            values = matched[name].values(0, finetuned.size)
            assert np.array_equal(values, finetuned.reshape(-1))


def test_a_tied_tensor_that_was_saved_as_the_head_alone_is_found(folder: Path) -> None:
    embeddings, finetuned = floats(6, 4), floats(6, 4)
    own = {"transformer.h.0.weight": floats(4, 4)}
    base = {"lm_head.weight": embeddings, "transformer.wte.weight": embeddings, **own}
    with (
        opened(folder, base) as ours,
        opened(folder, {"lm_head.weight": finetuned, **own}, "finetuned") as theirs,
    ):
        matched = match_body(theirs, ours)
        values = matched["transformer.wte.weight"].values(0, finetuned.size)
        assert np.array_equal(values, finetuned.reshape(-1))


# Equal by chance.


def test_layers_that_began_as_copies_are_not_tied_once_a_contribution_has_them_apart(
    folder: Path,
) -> None:
    layer = floats(5, 4)
    tensors = {"layer.0.weight": layer, "layer.1.weight": layer, "head.weight": floats(2, 2)}
    apart = {**tensors, "layer.1.weight": floats(5, 4)}
    with opened(folder, tensors) as base, opened(folder, tensors, "same") as same:
        found = fused_tensors(base, [together_in(same.tensors)])
        assert found.tied == {"layer.1.weight": "layer.0.weight"}
        with opened(folder, apart, "other") as other:
            found = fused_tensors(base, map(together_in, (same.tensors, other.tensors)))
    assert found.tied == {} and set(found.spans) == set(tensors)


def test_constant_matrices_are_not_tied(folder: Path) -> None:
    tensors = {f"layer.{i}.scale": np.ones((1, 8), np.float32) for i in range(2)}
    with opened(folder, tensors) as base:
        assert fused_tensors(base, ()).tied == {}
