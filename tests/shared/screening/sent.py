"""Contributions in every encoding as somebody may write them who means no good, from a seed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from coldfusion_shared.screening.screen import Encoded
from coldfusion_shared.weights.checkpoint import FileSource
from coldfusion_shared.weights.codecs.blocks import Block, row_elements
from coldfusion_shared.weights.codecs.frames import compress
from coldfusion_shared.weights.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from tests.shared.checkpoints import BFLOAT16, Array, Tensors, file_bytes

# What people send, the ends of float16, and what is just within the limit.
MAGNITUDES = [0, 1e-45, 1e-30, 1e-3, 1, 4, 1e4, 6e4, 1e9, 2.0**31]
BEYOND = [2.0**33, 1e19, 3e38]

Random = np.random.Generator


def numbers(rng: Random, shape: tuple[int, ...]) -> Array:
    """Return float32 values around one or several magnitudes."""
    known = MAGNITUDES if rng.random() < 0.9 else BEYOND
    kinds = rng.choice(known, size=int(rng.integers(1, 3)))
    with np.errstate(over="ignore"):
        values = rng.choice(kinds, size=shape) * rng.uniform(-1, 1, shape)
        return np.asarray(values, np.float32)


def _some(rng: Random, body: Tensors) -> list[str]:
    """Return names of some tensors of the base."""
    return [name for name in body if rng.random() < 0.7] or list(body)[:1]


def _full(rng: Random, body: Tensors) -> dict[str, Array]:
    kept = rng.random() < 0.5
    with np.errstate(over="ignore"):
        moved = {
            name: values if rng.random() < 0.3 else values.astype(np.float32) + step
            for name, values in body.items()
            for step in [numbers(rng, values.shape)]
        }
        return {
            name: np.asarray(values, body[name].dtype if kept else np.float32)
            for name, values in moved.items()
        }


def _delta(rng: Random, body: Tensors) -> dict[str, Array]:
    with np.errstate(over="ignore"):
        return {n: numbers(rng, body[n].shape).astype(BFLOAT16) for n in _some(rng, body)}


def _blocks(encoding: str) -> Callable[[Random, Tensors], dict[str, Array]]:
    def made(rng: Random, body: Tensors) -> dict[str, Array]:
        frames = {name: _frame(rng, encoding, body[name].shape) for name in _some(rng, body)}
        index = {f"index:{n}": np.array([len(f)] * bool(f), np.uint16) for n, f in frames.items()}
        data = {f"{encoding}:{n}": np.frombuffer(f, np.uint8) for n, f in frames.items()}
        return {**index, **data}

    return made


def _frame(rng: Random, encoding: str, shape: tuple[int, ...]) -> bytes:
    """Return the only block of a small tensor; nothing for none."""
    elements = int(np.prod(shape))
    if not elements:
        return b""
    block = Block(0, elements, row_elements(shape))
    scales = np.abs(numbers(rng, (block.rows,)))
    levels = rng.integers(-127, 128, elements).astype(np.int8)
    kept = rng.random(elements) < 0.5
    rest = {
        "delta-int8": levels.tobytes(),
        "delta-sign": np.packbits(kept).tobytes(),
        "delta-sparse": np.packbits(kept).tobytes() + levels[kept].tobytes(),
    }
    return compress([scales.tobytes() + rest[encoding]])


def _adapter(rng: Random, body: Tensors, *, dora: bool, rank: int) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for name in _some(rng, body):
        shape, module = body[name].shape, f"base_model.model.{name.removesuffix('.weight')}"
        if len(shape) != 2 or rank * sum(shape) > np.prod(shape):
            found[f"base_model.model.{name}"] = numbers(rng, shape)
            continue
        found[f"{module}.lora_A.weight"] = numbers(rng, (rank, shape[1]))
        found[f"{module}.lora_B.weight"] = numbers(rng, (shape[0], rank))
        if dora:
            found[f"{module}.lora_magnitude_vector"] = numbers(rng, (shape[0],))
    return found


WEIGHTS = {
    "full": _full,
    "delta": _delta,
    **{name: _blocks(name) for name in ("delta-int8", "delta-sparse", "delta-sign")},
}


def files_of(rng: Random, encoding: str, body: Tensors) -> Mapping[str, bytes]:
    """Return the files of a contribution."""
    if encoding != "lora":
        path = "model.safetensors" if encoding == "full" else "update.safetensors"
        return {path: file_bytes(WEIGHTS[encoding](rng, body))}
    dora, rank = bool(rng.random() < 0.5), int(rng.integers(1, 4))
    config: dict[str, Any] = {
        "peft_type": "LORA", "r": rank, "lora_alpha": float(rng.choice([1, 1e-30, 8, 1e6])),
        "use_dora": dora, "init_lora_weights": True,
    }  # fmt: skip
    tensors = _adapter(rng, body, dora=dora, rank=rank)
    return {ADAPTER_WEIGHTS: file_bytes(tensors), ADAPTER_CONFIG: json.dumps(config).encode()}


def sent(rng: Random, encoding: str, body: Tensors, folder: Path) -> Encoded:
    """Write a contribution to a new folder and open it."""
    home = next(folder / f"sent{i}" for i in count() if not (folder / f"sent{i}").exists())
    home.mkdir()
    sources = {}
    for path, raw in files_of(rng, encoding, body).items():
        (home / path).write_bytes(raw)
        sources[path] = FileSource(home / path)
    return Encoded(encoding, sources)
