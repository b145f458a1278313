"""All fusing methods on the same contributions."""

from __future__ import annotations

from coldfusion_shared.fusion.methods import WeightMethod, discover
from coldfusion_shared.schemas.recipes import Recipe
from experiments.lab import Lab
from experiments.protocols import protocol
from experiments.steps.finetuning import contribution_rate
from experiments.steps.following import PRETRAINED, looked_at, scorings
from experiments.steps.fusing import by_method, fused
from experiments.steps.lines import Way, first_round
from experiments.steps.scoring import suite_of, validation_score


def _pairs(arms: list[str]) -> list[tuple[str, str]]:
    return [(arm, "mean") for arm in arms if arm not in (PRETRAINED, "mean")]


@protocol("methods", "every fusing method on the same contributions of one round", pairs=_pairs)
def run(lab: Lab) -> None:
    """A method that cannot fuse these is told with its reason."""
    names = lab.data.names
    loaded, last = suite_of(lab, names, names), scorings(lab)
    rate = contribution_rate(lab, names, "all")
    for seed in lab.seeds:
        looked_at(lab, PRETRAINED, lab.pretrained, seed, loaded, last)
        updates = first_round(lab, Way("all", names, rate, Recipe(), rounds=1), seed)
        for name in lab.settings.methods or list(discover()):
            with lab.failing(name, 1, seed):
                method = discover()[name]
                scored = isinstance(method, WeightMethod) and method.needs_score
                score = validation_score(lab, names) if scored else None
                recipe = by_method(lab.settings.recipe, name)
                base = fused(lab, lab.pretrained, updates, recipe, score=score)
                looked_at(lab, name, base, seed, loaded, last, 1)
