"""Folds of the data sets: lines that have never seen some of them, scored on these."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from experiments.lab import Lab
from experiments.protocols import protocol
from experiments.steps.finetuning import contribution_rate
from experiments.steps.following import PRETRAINED, followed, looked_at, scorings
from experiments.steps.lines import Way
from experiments.steps.scoring import suite_of

# More than a run has.
SEEDS = 200


def folds(lab: Lab) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the seen and the unseen data sets of each fold that is run."""
    settings, names = lab.settings, lab.data.names
    shuffled = random.Random("folds").sample(names, len(names))
    for fold in range(min(settings.folds, settings.folds_run, len(names) - 1)):
        unseen = shuffled[fold :: settings.folds]
        yield [name for name in names if name not in unseen], sorted(unseen)


def line_seed(seed: int, fold: int) -> int:
    """Return the seed of a fold's line: each fold has draws of its own."""
    return seed + SEEDS * fold


def scored_names(seen: Sequence[str], unseen: Sequence[str]) -> list[str]:
    """Return what a fold is scored on: what it has not seen, and as much of what it has."""
    return [*unseen, *seen[: len(unseen)]]


@protocol(
    "unseen",
    "what a base that never saw a data set is worth on it, in folds",
    "Figure 3",
    served=True,
)
def run(lab: Lab) -> None:
    """Frozen and finetuned scores on seen and on unseen data sets."""
    last = scorings(lab)
    rate = contribution_rate(lab, lab.data.names, "cold")
    for seed in lab.seeds:
        for number, (seen, unseen) in enumerate(folds(lab)):
            loaded = suite_of(lab, scored_names(seen, unseen), seen)
            way = Way("cold", seen, rate, lab.settings.recipe)
            looked_at(lab, PRETRAINED, lab.pretrained, seed, loaded, last)
            followed(lab, way, line_seed(seed, number), loaded, last, as_seed=seed)
