"""Fuse models by the mean: ``python -m benchmarks.fuse_once THREADS OUT BASE MODEL...``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from coldfusion_shared.fusion.engine import Update, fused_file
from coldfusion_shared.fusion.executor import threads
from coldfusion_shared.weights.checkpoint import Checkpoint


def main(count: int, out: Path, base_folder: Path, folders: list[Path]) -> None:
    """Write the fused weights and sync them to the disk."""
    base = Checkpoint.from_folder(base_folder)
    updates = [
        Update(folder.name, Checkpoint.from_folder(folder), base, 1 / len(folders))
        for folder in folders
    ]
    with out.open("wb") as file:
        for span in fused_file("model.safetensors", base, updates, threads(count)):
            file.write(span)
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    output, first, *others = map(Path, sys.argv[2:])
    main(int(sys.argv[1]), output, first, others)
