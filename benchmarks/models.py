"""Models of a given size, generated: a base and finetuned ones with small updates."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from coldfusion_shared.weights.header import build_header

HIDDEN, LAYERS, VOCABULARY, POSITIONS = 768, 12, 50_265, 514
BLOCK = 2**20
UPDATE_SCALE = 0.01


def tensors(layers: int = LAYERS) -> list[tuple[str, str, tuple[int, ...]]]:
    """Return the tensors of RoBERTa-base (125 M values), or of one with other many layers."""
    square, wide = (HIDDEN, HIDDEN), (4 * HIDDEN, HIDDEN)
    listed: list[tuple[str, tuple[int, ...]]] = [
        ("embeddings.word_embeddings.weight", (VOCABULARY, HIDDEN)),
        ("embeddings.position_embeddings.weight", (POSITIONS, HIDDEN)),
        ("embeddings.LayerNorm.weight", (HIDDEN,)),
        ("embeddings.LayerNorm.bias", (HIDDEN,)),
    ]
    for layer in range(layers):
        prefix = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            listed += [(f"{prefix}.attention.self.{part}.weight", square)]
            listed += [(f"{prefix}.attention.self.{part}.bias", (HIDDEN,))]
        listed += [
            (f"{prefix}.attention.output.dense.weight", square),
            (f"{prefix}.attention.output.dense.bias", (HIDDEN,)),
            (f"{prefix}.intermediate.dense.weight", wide),
            (f"{prefix}.intermediate.dense.bias", (4 * HIDDEN,)),
            (f"{prefix}.output.dense.weight", wide[::-1]),
            (f"{prefix}.output.dense.bias", (HIDDEN,)),
        ]
    return [(name, "F32", shape) for name, shape in listed]


def write_models(folder: Path, count: int, layers: int = LAYERS) -> tuple[Path, list[Path]]:
    """
    Write a base and `count` models finetuned from it, each a transformers folder; return them.

    What is there already is kept, so that a second run begins at once.
    """
    base = _write(folder / "base", 0, None, layers)
    return base, [_write(folder / f"model{i}", i, base, layers) for i in range(1, count + 1)]


def _write(folder: Path, seed: int, base: Path | None, layers: int) -> Path:
    file = folder / "model.safetensors"
    if file.is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "roberta"}))
    header = build_header(tensors(layers))
    values = sum(int(np.prod(shape)) for _, _, shape in tensors(layers))
    rng = np.random.default_rng(seed)
    partial = file.with_suffix(".partial")
    source = None if base is None else (base / "model.safetensors").open("rb")
    with partial.open("wb") as out:
        out.write(header)
        if source is not None:
            source.seek(len(header))
        for start in range(0, values, BLOCK):
            size = min(BLOCK, values - start)
            block = 0.02 * rng.standard_normal(size, dtype=np.float32)
            if source is not None:
                theirs = np.frombuffer(source.read(4 * size), dtype=np.float32)
                block = theirs + np.float32(UPDATE_SCALE) * block
            out.write(block.data)
    if source is not None:
        source.close()
    partial.replace(file)
    return folder
