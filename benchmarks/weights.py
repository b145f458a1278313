"""A model of any size for transfers: valid, quickly written, and new each time that it is sent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.models import WEIGHTS
from coldfusion_shared.weights.header import build_header

# One tensor: 4 MiB.
ROWS = COLUMNS = 2**10
TENSOR_BYTES = 4 * ROWS * COLUMNS
CHANGED_VALUES = 2**10


def write_weights(folder: Path, size: int) -> Path:
    """Write a transformers folder with `size` bytes of values or a little less; return the file."""
    folder.mkdir(parents=True)
    config = {"model_type": "bert", "architectures": ["BertModel"]}
    (folder / "config.json").write_text(json.dumps(config))
    count = max(1, size // TENSOR_BYTES)
    names = [f"encoder.layer.{i}.output.dense.weight" for i in range(count)]
    values = _values(ROWS * COLUMNS)
    with (folder / WEIGHTS).open("wb") as file:
        file.write(build_header([(name, "F32", (ROWS, COLUMNS)) for name in names]))
        for _ in names:
            file.write(values)
    return folder / WEIGHTS


def renew(file: Path) -> None:
    """Change the last values, in place, so that the file has another digest."""
    with file.open("r+b") as opened:
        opened.seek(-4 * CHANGED_VALUES, 2)
        opened.write(_values(CHANGED_VALUES))


def _values(count: int) -> memoryview:
    rng = np.random.default_rng()
    return (0.02 * rng.standard_normal(count, dtype=np.float32)).data
