"""Few-shot: unseen data sets, learnt from a hundred examples."""

from __future__ import annotations

from experiments.lab import Lab
from experiments.protocols import protocol
from experiments.protocols.unseen import folds, line_seed
from experiments.steps.finetuning import contribution_rate
from experiments.steps.following import PRETRAINED, followed, looked_at
from experiments.steps.lines import Way
from experiments.steps.scoring import FEW_SHOT, suite_of


@protocol("few-shot", "unseen data sets, finetuned on a hundred examples", "Figure 4", served=True)
def run(lab: Lab) -> None:
    """The lines are those of `unseen`."""
    rate = contribution_rate(lab, lab.data.names, "cold")
    for seed in lab.seeds:
        for number, (seen, unseen) in enumerate(folds(lab)):
            loaded = suite_of(lab, unseen[: lab.settings.few_shot_datasets], seen)
            way = Way("cold", seen, rate, lab.settings.recipe)
            looked_at(lab, PRETRAINED, lab.pretrained, seed, loaded, [FEW_SHOT])
            followed(lab, way, line_seed(seed, number), loaded, [FEW_SHOT], as_seed=seed)
