"""
Fuse models by Flower: ``python -m benchmarks.flwr_once RULE OUT MODEL...``.

Runs in the peers' interpreter, so it imports nothing of ours. A RULE is mean, median, trimmed_mean
or krum, with the parameters that ours have by default.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float32]

TRIMMED = 0.2


def main(rule: str, out: Path, folders: list[Path]) -> None:
    """Write what `rule` makes of the models and sync it to the disk."""
    files = [folder / "model.safetensors" for folder in folders]
    fused = _rules(len(files))[rule]([(_load(file), 1) for file in files])
    with files[0].open("rb") as first, out.open("wb") as file:
        file.write(first.read(_header_length(files[0])))
        for layer in fused:
            file.write(np.ascontiguousarray(layer, np.float32).data)
        file.flush()
        os.fsync(file.fileno())


def _rules(count: int) -> dict[str, Callable[[list[Any]], list[Values]]]:
    flwr = import_module("flwr.server.strategy.aggregate")
    hostile = (count - 3) // 2
    return {
        "mean": flwr.aggregate,
        "median": flwr.aggregate_median,
        "trimmed_mean": lambda results: flwr.aggregate_trimmed_avg(results, TRIMMED),
        "krum": lambda results: flwr.aggregate_krum(results, hostile, 0),
    }


def _header_length(file: Path) -> int:
    with file.open("rb") as opened:
        return 8 + int.from_bytes(opened.read(8), "little")


def _load(file: Path) -> list[Values]:
    """Return all tensors, in the order of the file."""
    length = _header_length(file)
    header = _header(file, length)
    header.pop("__metadata__", None)
    spans = sorted(header.values(), key=lambda span: span["data_offsets"][0])
    return [_read(file, length + span["data_offsets"][0], span["shape"]) for span in spans]


def _read(file: Path, start: int, shape: list[int]) -> Values:
    return np.fromfile(file, np.float32, int(np.prod(shape)), offset=start).reshape(shape)


def _header(file: Path, length: int) -> dict[str, Any]:
    with file.open("rb") as opened:
        opened.seek(8)
        header: dict[str, Any] = json.loads(opened.read(length - 8))
        return header


if __name__ == "__main__":
    output, *others = map(Path, sys.argv[2:])
    main(sys.argv[1], output, others)
