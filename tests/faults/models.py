"""Models of any size that cost no training: one tensor takes nearly all of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

WIDTH = 32
LARGE = "embeddings.position_embeddings.weight"


def pretrained(tiny: Path, folder: Path, size: int) -> Path:
    """Write the model in `tiny` to `folder`, with a table of positions of `size` bytes."""
    shutil.copytree(tiny, folder)
    rows = size // (4 * WIDTH)
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = rows
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    rng = np.random.default_rng(0)
    weights[LARGE] = 0.02 * rng.standard_normal((rows, WIDTH), dtype=np.float32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def finetuned(base: Path, folder: Path, seed: int) -> Path:
    """Write the model in `base` to `folder`, with a little noise in each weight of its table."""
    shutil.copytree(base, folder)
    weights = load_file(folder / "model.safetensors")
    rng = np.random.default_rng(seed)
    weights[LARGE] += 1e-3 * rng.standard_normal(weights[LARGE].shape, dtype=np.float32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
