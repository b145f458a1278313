"""Fuse models: ``python -m benchmarks.fuse_once RECIPE GRAM THREADS OUT BASE MODEL...``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from coldfusion_shared.fusion.engine import Onto, fused
from coldfusion_shared.fusion.executor import threads
from coldfusion_shared.fusion.plan import make_plan
from coldfusion_shared.fusion.updates import FullUpdate, Update
from coldfusion_shared.fusion.views import weights_view
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import Checkpoint


def main(
    recipe: Recipe, gram: bool, count: int, out: Path, base_folder: Path, folders: list[Path]
) -> None:
    """Write the fused weights and sync them to the disk."""
    base = Checkpoint.from_folder(base_folder)
    updates = [
        Update(folder.name, FullUpdate(Checkpoint.from_folder(folder).tensors, base.tensors))
        for folder in folders
    ]
    executor = threads(count)
    plan = make_plan(body(base.spans()), updates, recipe, executor, with_gram=gram)
    with out.open("wb") as file:
        for piece in fused(plan, Onto(base), [weights_view(base.spans())], executor):
            file.write(piece.data)
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    output, first, *others = map(Path, sys.argv[4:])
    main(
        Recipe.model_validate_json(sys.argv[1]),
        sys.argv[2] == "gram",
        int(sys.argv[3]),
        output,
        first,
        others,
    )
