"""Folds of the data sets: lines that have never seen some of them, scored on these."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from coldfusion_shared.errors import InvalidRequest
from experiments.lab import Lab
from experiments.protocols import protocol
from experiments.steps.finetuning import contribution_rate
from experiments.steps.following import PRETRAINED, followed, looked_at, scorings
from experiments.steps.lines import Way
from experiments.steps.scoring import suite_of

# More than a run has.
SEEDS = 200


@dataclass(frozen=True)
class Fold:
    """
    What some lines see.

    Attributes:
        number: from 0.
        seen: data sets that take part.
        unseen: those that do not.
        also: of the seen ones those that are scored, too: over all folds each one once.
    """

    number: int
    seen: Sequence[str]
    unseen: Sequence[str]
    also: Sequence[str]

    @property
    def arm(self) -> str:
        """Whom a learning rate is for: nothing of a fold is chosen by what it has not seen."""
        return f"cold, fold {self.number + 1}"

    def line_seed(self, seed: int) -> int:
        """Return the seed of the fold's line: each fold has draws of its own."""
        return seed + SEEDS * self.number


def folds(lab: Lab) -> Iterator[Fold]:
    """Yield the folds that are run; raises `InvalidRequest` where there are too few data sets."""
    settings, names = lab.settings, lab.data.names
    parts = _dealt(_units(names, settings.families), settings.folds)
    if len(parts) < 2:
        raise InvalidRequest(
            "Folds need two data sets that share no texts.", hint="Give more in `datasets`."
        )
    for number, unseen in enumerate(parts[: settings.folds_run]):
        seen = [name for name in names if name not in unseen]
        yield Fold(number, seen, unseen, parts[(number + 1) % len(parts)])


def _units(names: Sequence[str], families: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return what is seen or unseen together: families, as far as they are there, and the rest."""
    units = [[name for name in family if name in names] for family in families]
    related = {name for unit in units for name in unit}
    return [unit for unit in units if unit] + [[name] for name in names if name not in related]


def _dealt(units: Sequence[list[str]], folds: int) -> list[list[str]]:
    """Return the names in at most so many parts, about as long as each other."""
    shuffled = random.Random("folds").sample(units, len(units))
    parts: list[list[str]] = [[] for _ in range(min(folds, len(units)))]
    # The long ones first, that the others can make up for.
    for unit in sorted(shuffled, key=len, reverse=True):
        min(parts, key=len).extend(unit)
    return [sorted(part) for part in parts]


@protocol(
    "unseen",
    "what a base that never saw a data set is worth on it, in folds",
    "Figure 3",
    served=True,
)
def run(lab: Lab) -> None:
    """Frozen and finetuned scores on seen and on unseen data sets."""
    last = scorings(lab)
    for fold in folds(lab):
        rate = contribution_rate(lab, fold.seen, fold.arm)
        way = Way("cold", fold.seen, rate, lab.settings.recipe)
        loaded = suite_of(lab, [*fold.unseen, *fold.also], fold.seen)
        for seed in lab.seeds:
            looked_at(lab, PRETRAINED, lab.pretrained, seed, loaded, last)
            followed(lab, way, fold.line_seed(seed), loaded, last, as_seed=seed)
