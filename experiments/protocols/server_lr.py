"""The server learning rate: fixed, by the updates' lengths, and searched for."""

from __future__ import annotations

from collections.abc import Sequence

from coldfusion_shared.rounds.line_search import best
from coldfusion_shared.schemas.recipes import Recipe
from experiments.data import spread
from experiments.lab import Lab, Model
from experiments.protocols import all_with_first, protocol
from experiments.steps.finetuning import contribution_rate
from experiments.steps.following import PRETRAINED, followed, looked_at, scorings
from experiments.steps.fusing import Update, fused
from experiments.steps.lines import Way
from experiments.steps.scoring import FROZEN, scored, suite_of

SEARCH = "line search"


def searched(lab: Lab, base: Model, updates: Sequence[Update], seed: int) -> Model:
    """Return the best of several candidates by frozen scores on validation parts."""
    names = spread(lab.data.names, lab.settings.tuning.score_datasets)
    loaded = suite_of(lab, names, names, chooses=True)
    rates, candidates, scores = lab.settings.server_lrs, [], []
    for rate in rates:
        recipe = lab.settings.recipe.model_copy(update={"server_lr": rate})
        candidates.append(fused(lab, base, updates, recipe))
        found = scored(lab, candidates[-1], loaded, FROZEN, seed)
        scores.append(found[0].average if found else 0.0)
    return candidates[best(rates, scores)]


@protocol("server-lr", "the server learning rate: fixed, auto, line search", pairs=all_with_first)
def run(lab: Lab) -> None:
    """All with the run's method; the first rate is what the others are compared with."""
    names, settings = lab.data.names, lab.settings
    loaded, last = suite_of(lab, names, names), scorings(lab)
    lr = contribution_rate(lab, names, "all")
    recipes: dict[str, Recipe] = {
        f"rate {rate:g}": settings.recipe.model_copy(update={"server_lr": rate})
        for rate in settings.server_lrs
    }
    recipes["auto"] = settings.recipe.model_copy(update={"server_lr": "auto"})
    for seed in lab.seeds:
        looked_at(lab, PRETRAINED, lab.pretrained, seed, loaded, last)
        for arm, recipe in recipes.items():
            followed(lab, Way(arm, names, lr, recipe), seed, loaded, last)
        followed(lab, Way(SEARCH, names, lr, settings.recipe, fuse=searched), seed, loaded, last)
