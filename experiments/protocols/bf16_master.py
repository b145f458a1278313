"""What a float32 master is worth to a base that is published in bfloat16."""

from __future__ import annotations

from collections.abc import Sequence

from coldfusion_shared.schemas.recipes import Recipe
from experiments.lab import Lab, Model
from experiments.protocols import protocol
from experiments.steps.finetuning import contribution_rate
from experiments.steps.following import PRETRAINED, followed, looked_at, scorings
from experiments.steps.fusing import Update, fused
from experiments.steps.lines import Fuse, Way
from experiments.steps.scoring import suite_of

F32, BF16 = "F32", "BF16"
ARMS = {"float32": (F32, False), "bfloat16, master": (BF16, False), "bfloat16 alone": (BF16, True)}


def _pairs(arms: list[str]) -> list[tuple[str, str]]:
    return [("bfloat16, master", "bfloat16 alone"), ("bfloat16, master", "float32")]


@protocol("bf16-master", "a float32 master beside bases in bfloat16", pairs=_pairs)
def run(lab: Lab) -> None:
    """All arms begin with the same base; what is published after it is of each one's own dtype."""
    names, recipe = lab.data.names, lab.settings.recipe
    loaded, last = suite_of(lab, names, names), scorings(lab)
    lr = contribution_rate(lab, names, "all")
    for seed in lab.seeds:
        looked_at(lab, PRETRAINED, lab.pretrained, seed, loaded, last)
        for arm, (dtype, forget) in ARMS.items():
            way = Way(arm, names, lr, recipe, fuse=_in(recipe, dtype, forget))
            followed(lab, way, seed, loaded, last)


def _in(recipe: Recipe, dtype: str | None, forget: bool) -> Fuse:
    def fuse(lab: Lab, base: Model, updates: Sequence[Update], seed: int) -> Model:
        return fused(lab, base, updates, recipe, dtype=dtype, forget=forget)

    return fuse
