"""ColD over its rounds, beside what the same examples and steps make in other ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from experiments.lab import Lab, Model
from experiments.protocols import protocol
from experiments.steps.baselines import greedy_soup, learnt_together, one_shot, uniform_soup
from experiments.steps.finetuning import contribution_rate
from experiments.steps.following import PRETRAINED, followed, looked_at, scorings
from experiments.steps.fusing import fused
from experiments.steps.lines import Way
from experiments.steps.scoring import suite_of, validation_score

BASELINES = ("fuse", "multitask", "uniform-soup", "greedy-soup")


def _pairs(arms: list[str]) -> list[tuple[str, str]]:
    return [("cold", arm) for arm in BASELINES if arm in arms]


@protocol(
    "main",
    "ColD over its rounds, against Multitask, one-shot Fuse and soups at equal budget",
    "Figure 2",
    pairs=_pairs,
    served=True,
)
def run(lab: Lab) -> None:
    """All data sets are seen; frozen scores each round, finetuned ones of the last base."""
    names = lab.data.names
    loaded, last = suite_of(lab, names, names), scorings(lab)
    way = Way("cold", names, contribution_rate(lab, names, "cold"), lab.settings.recipe)
    for seed in lab.seeds:
        looked_at(lab, PRETRAINED, lab.pretrained, seed, loaded, last)
        followed(lab, way, seed, loaded, last)
        with lab.failing("baselines", seed=seed):
            for arm, make in _baselines(lab, names, seed).items():
                with lab.failing(arm, seed=seed):
                    looked_at(lab, arm, make(), seed, loaded, last)


def _baselines(lab: Lab, names: Sequence[str], seed: int) -> dict[str, Callable[[], Model]]:
    """Return what makes each baseline of a seed."""
    updates = one_shot(lab, names, seed)
    recipe, score = lab.settings.recipe, validation_score(lab, names)
    return {
        "fuse": partial(fused, lab, lab.pretrained, updates, recipe),
        "multitask": partial(learnt_together, lab, names, seed),
        "uniform-soup": partial(uniform_soup, lab, updates),
        "greedy-soup": partial(greedy_soup, lab, updates, score),
    }
