"""Few-shot: unseen data sets, learnt from a hundred examples."""

from __future__ import annotations

from experiments.data import spread
from experiments.lab import Lab
from experiments.protocols import protocol
from experiments.protocols.unseen import folds
from experiments.steps.finetuning import contribution_rate
from experiments.steps.following import PRETRAINED, followed, looked_at
from experiments.steps.lines import Way
from experiments.steps.scoring import FEW_SHOT, suite_of


@protocol("few-shot", "unseen data sets, finetuned on a hundred examples", "Figure 4", served=True)
def run(lab: Lab) -> None:
    """The lines are those of `unseen`."""
    for fold in folds(lab):
        rate = contribution_rate(lab, fold.seen, fold.arm)
        way = Way("cold", fold.seen, rate, lab.settings.recipe)
        loaded = suite_of(lab, spread(fold.unseen, lab.settings.few_shot_datasets), fold.seen)
        for seed in lab.seeds:
            looked_at(lab, PRETRAINED, lab.pretrained, seed, loaded, [FEW_SHOT])
            followed(lab, way, fold.line_seed(seed), loaded, [FEW_SHOT], as_seed=seed)
