"""Model folders written from arrays, sharded or not, fused in one call, and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coldfusion_shared.fusion.folders import Contribution, Job, fuse_folders
from coldfusion_shared.fusion.report import Report
from coldfusion_shared.schemas.recipes import Recipe
from tests.shared.checkpoints import BFLOAT16, Array, Tensors, file_bytes, read_file, write_file

CONFIG = {"model_type": "bert", "torch_dtype": "float32"}
FLOATS = (np.dtype(np.float32), np.dtype(np.float16), np.dtype(np.float64), BFLOAT16)


def tiny_tensors(seed: int = 0, dtype: Any = np.float32) -> dict[str, Array]:
    """Return a model of seven tensors, among them one of integers and a head."""
    rng = np.random.default_rng(seed)

    def floats(*shape: int) -> Array:
        return np.asarray(rng.standard_normal(shape)).astype(dtype)

    return {
        "embeddings.word_embeddings.weight": floats(13, 6),
        "embeddings.position_ids": np.arange(9).reshape(1, 9),
        "encoder.layer.0.dense.weight": floats(6, 6),
        "encoder.layer.0.dense.bias": floats(6),
        "encoder.scale": floats(),
        "pooler.dense.weight": floats(6, 6),
        "classifier.weight": floats(2, 6),
    }


def finetuned(base: Tensors, seed: int, scale: float = 1e-2, dtype: Any = None) -> dict[str, Array]:
    """Return `base` with other floats, its own or `dtype`, heads too."""
    rng = np.random.default_rng([seed, 5])
    return {
        name: np.asarray(array.astype(np.float64) + scale * rng.standard_normal(array.shape))
        .astype(dtype or array.dtype)
        .reshape(array.shape)
        if array.dtype in FLOATS
        else array
        for name, array in base.items()
    }


def write_model(folder: Path, tensors: Tensors, shards: int = 1, config: Any = None) -> Path:
    """Write a model folder of `shards` files; the tensors go round."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    if shards == 1:
        write_file(folder / "model.safetensors", tensors)
        return folder
    names = [f"model-{place + 1:05}-of-{shards:05}.safetensors" for place in range(shards)]
    weight_map = {tensor: names[place % shards] for place, tensor in enumerate(tensors)}
    for file in names:
        part = {tensor: tensors[tensor] for tensor in tensors if weight_map[tensor] == file}
        (folder / file).write_bytes(file_bytes(part, {"format": "pt"}))
    size = sum(array.nbytes for array in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def read_model(folder: Path) -> dict[str, Array]:
    """Return all tensors of the model folder."""
    found: dict[str, Array] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        found |= read_file(file.read_bytes())
    return found


def all_files(folder: Path) -> dict[str, bytes]:
    """Return every file below `folder`, by its path there."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_line(
    folder: Path, base: Tensors, models: Sequence[Tensors]
) -> tuple[Path, list[Contribution]]:
    """Write a base and what was finetuned from it, c0, c1, ...; return both for a `Job`."""
    place = write_model(folder / "base", base)
    return place, [
        Contribution(f"c{number}", write_model(folder / f"c{number}", model))
        for number, model in enumerate(models)
    ]


def fuse(
    base: Path,
    contributions: Sequence[Contribution],
    out: Path,
    recipe: Mapping[str, Any] | None = None,
    *,
    threads: int = 1,
    **job: Any,
) -> Report:
    """Fuse folders into `out`; `recipe` holds the recipe's fields, `job` further ones of `Job`."""
    wanted = Recipe.model_validate(dict(recipe or {}))
    return fuse_folders(Job(base, contributions, wanted, out, **job), threads)


def mean_of(models: Sequence[Tensors], name: str) -> Array:
    """Return the mean of one tensor over `models`, float64."""
    mean: Array = np.mean([model[name].astype(np.float64) for model in models], axis=0)
    return mean
