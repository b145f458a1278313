"""Adapters written by a few lines of their own, and what they mean by the definition, dense."""

from __future__ import annotations

import json
import math
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coldfusion_shared.fusion.updates import Scratch, UpdateReader
from coldfusion_shared.weights.checkpoint import Checkpoint, FileSource
from coldfusion_shared.weights.lora import LoraUpdate, open_adapter
from tests.shared.checkpoints import Array, Tensors, write_file

Doubles = npt.NDArray[np.float64]

# Of a model with linear layers; wide is (out, in), square too.
SHAPES: dict[str, tuple[int, ...]] = {
    "embeddings.words.weight": (50, 12),
    "encoder.wide.weight": (12, 20),
    "encoder.wide.bias": (12,),
    "encoder.square.weight": (12, 12),
    "encoder.square.bias": (12,),
    "encoder.norm.weight": (12,),
}


def settings(**changed: Any) -> dict[str, Any]:
    """Return an adapter's configuration, as far as it says what the tensors mean."""
    plain = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "elsewhere"}
    return {**plain, "init_lora_weights": True, "bias": "none", **changed}


def base_of(folder: Path, seed: int = 0, dtype: npt.DTypeLike = np.float32) -> Checkpoint:
    """Write a model of `SHAPES` and open it."""
    rng = np.random.default_rng(seed)
    tensors = {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}
    return opened(folder, tensors)


def opened(folder: Path, tensors: Tensors) -> Checkpoint:
    """Write `tensors` to a new file and open it."""
    return Checkpoint.from_file(write_file(_new(folder), tensors))


def adapter(folder: Path, config: object, tensors: Tensors, base: Checkpoint) -> LoraUpdate:
    """Write an adapter and open it; names of tensors are given without what peft puts before."""
    path = write_file(_new(folder), {f"base_model.model.{k}": v for k, v in tensors.items()})
    raw = config if isinstance(config, bytes) else json.dumps(config).encode()
    return open_adapter(raw, FileSource(path), base.tensors)


def _new(folder: Path) -> Path:
    return next(
        folder / f"{i}.safetensors" for i in count() if not (folder / f"{i}.safetensors").exists()
    )


def pair(
    module: str, inner: int, outer: int, rank: int = 4, seed: int = 0, scale: float = 0.1
) -> dict[str, Array]:
    """Return A and B of a linear module."""
    rng = np.random.default_rng([seed, inner, outer, rank])
    return {
        f"{module}.lora_A.weight": normal(rng, (rank, inner), scale),
        f"{module}.lora_B.weight": normal(rng, (outer, rank), scale),
    }


def normal(rng: np.random.Generator, shape: tuple[int, ...], scale: float = 1.0) -> Array:
    """Return normal values, float32."""
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def decoded(update: UpdateReader, base: Checkpoint, name: str) -> Array:
    """Return a tensor's whole update in its shape."""
    span = base.tensors[name].span
    out = np.empty(span.elements, np.float32)
    update.read(span, 0, span.elements, out, Scratch())
    return out.reshape(span.shape)


def values_of(base: Checkpoint, name: str) -> Doubles:
    """Return a tensor of the base, float64."""
    tensor = base.tensors[name]
    values: Doubles = tensor.values(0, tensor.span.elements).astype(np.float64)
    return values.reshape(tensor.span.shape)


def product(tensors: Tensors, module: str, alpha: float = 8, *, rslora: bool = False) -> Doubles:
    """Return scale * B A by its definition, (out, in)."""
    a, b = (tensors[f"{module}.lora_{kind}.weight"].astype(np.float64) for kind in "AB")
    scale = alpha / (math.sqrt(len(a)) if rslora else len(a))
    dense: Doubles = scale * (b @ a)
    return dense


def close(found: Array, expected: Doubles) -> bool:
    """Return whether `found` is `expected` rounded once to float32, but for its last bit."""
    exact = expected.astype(np.float32)
    return bool((np.abs(found - exact) <= np.spacing(np.abs(exact)) + 1e-30).all())
