"""Models of a given size, generated: a base and finetuned ones with small updates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from coldfusion_shared.weights.header import build_header

HIDDEN, LAYERS, VOCABULARY, POSITIONS = 768, 12, 50_265, 514
BLOCK = 2**20
UPDATE_SCALE = 0.01
WEIGHTS = "model.safetensors"


def tensors(layers: int = LAYERS) -> list[tuple[str, str, tuple[int, ...]]]:
    """
    Return the tensors of RoBERTa-base (125 M values), or of one with other many layers.

    All of them, under the names that mergekit knows for a RobertaModel: what it does not find it
    leaves out without an error.
    """
    listed: list[tuple[str, tuple[int, ...]]] = [
        ("roberta.embeddings.word_embeddings.weight", (VOCABULARY, HIDDEN)),
        ("roberta.embeddings.position_embeddings.weight", (POSITIONS, HIDDEN)),
        ("roberta.embeddings.token_type_embeddings.weight", (1, HIDDEN)),
        *_normalization("roberta.embeddings.LayerNorm"),
    ]
    for layer in range(layers):
        prefix = f"roberta.encoder.layer.{layer}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            listed += _dense(f"{prefix}.attention.{part}", HIDDEN, HIDDEN)
        listed += _normalization(f"{prefix}.attention.output.LayerNorm")
        listed += _dense(f"{prefix}.intermediate.dense", 4 * HIDDEN, HIDDEN)
        listed += _dense(f"{prefix}.output.dense", HIDDEN, 4 * HIDDEN)
        listed += _normalization(f"{prefix}.output.LayerNorm")
    listed += _dense("pooler.dense", HIDDEN, HIDDEN)
    return [(name, "F32", shape) for name, shape in listed]


def value_count(layers: int = LAYERS) -> int:
    """Return how many values a model has."""
    return sum(int(np.prod(shape)) for _, _, shape in tensors(layers))


def write_models(folder: Path, count: int, layers: int = LAYERS) -> tuple[Path, list[Path]]:
    """
    Write a base and `count` models finetuned from it, each a transformers folder; return them.

    What is there already is kept, so that a second run begins at once.
    """
    base = _write(folder / "base", 0, None, layers)
    return base, [_write(folder / f"model{i}", i, base, layers) for i in range(1, count + 1)]


def linked(folder: Path, models: Sequence[Path], count: int) -> list[Path]:
    """Return `count` folders under `folder`, links to `models` in turn, which take no room."""
    folder.mkdir(parents=True, exist_ok=True)
    links = [folder / f"link{i}" for i in range(count)]
    for i, link in enumerate(links):
        link.unlink(missing_ok=True)
        link.symlink_to(models[i % len(models)].resolve(), target_is_directory=True)
    return links


def _dense(name: str, out: int, into: int) -> list[tuple[str, tuple[int, ...]]]:
    return [(f"{name}.weight", (out, into)), (f"{name}.bias", (out,))]


def _normalization(name: str) -> list[tuple[str, tuple[int, ...]]]:
    return [(f"{name}.weight", (HIDDEN,)), (f"{name}.bias", (HIDDEN,))]


def _write(folder: Path, seed: int, base: Path | None, layers: int) -> Path:
    file = folder / WEIGHTS
    if file.is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "roberta",
        "architectures": ["RobertaModel"],
        "num_hidden_layers": layers,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 1,
    }
    (folder / "config.json").write_text(json.dumps(config))
    header = build_header(tensors(layers))
    values = value_count(layers)
    rng = np.random.default_rng(seed)
    partial = file.with_suffix(".partial")
    source = None if base is None else (base / WEIGHTS).open("rb")
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
