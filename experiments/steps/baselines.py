"""What ColD is compared with, at the same budget of examples and steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from coldfusion_shared.data import TextDataset
from coldfusion_shared.errors import TrainingFailed
from coldfusion_shared.schemas.recipes import Recipe
from experiments.data import spread, steps_of
from experiments.lab import Lab, Model
from experiments.steps.finetuning import best_rate, finetuned
from experiments.steps.fusing import Score, Update, fused
from experiments.steps.lines import PLACES, dealt
from experiments.steps.multitask import Share, multitask

UNIFORM = Recipe(method="mean")
GREEDY = Recipe(method="greedy_soup")
# Of finetunings that no round has.
ONE_SHOT = 999


@dataclass(frozen=True)
class Budget:
    """
    What all contributors of a line that had the same data set had together.

    Attributes:
        part: their examples.
        epochs: passes over these that make as many examples as theirs.
        steps: as many as theirs.
    """

    part: TextDataset
    epochs: float
    steps: int


def budgets(lab: Lab, pool: Sequence[str], seed: int) -> list[Budget]:
    """Return the budget of a whole line for each data set that takes part in it."""
    settings = lab.settings
    seats = dealt(pool, settings.rounds, settings.contributors, seed)
    turns = Counter(seat.dataset for row in seats for seat in row)
    return [_budget(lab, name, turns[name], seed) for name in pool if turns[name]]


def _budget(lab: Lab, name: str, turns: int, seed: int) -> Budget:
    settings, learning = lab.settings, lab.settings.learning
    own = min(settings.examples, len(lab.data.dataset(name).train))
    # With the validation part that rates are chosen by: what was tried need not be made again.
    part = lab.data.part(name, own * turns, seed, scored=settings.measuring.validation)
    return Budget(
        part,
        learning.epochs * own * turns / len(part.train),
        turns * steps_of(own, learning.epochs, learning.batch_size),
    )


def one_shot(lab: Lab, pool: Sequence[str], seed: int) -> list[Update]:
    """Return the pretrained model finetuned once on all that each data set's contributors had."""
    rate = _one_shot_rate(lab, pool)
    updates = []
    for place, budget in enumerate(budgets(lab, pool, seed)):
        try:
            model = _learnt_alone(lab, budget, rate, seed, place)
        except TrainingFailed as error:
            lab.note("failure", "fuse", seed=seed, note=f"{budget.part.name}: {error.message}")
            continue
        updates.append(Update(f"{place:03}-{budget.part.name}", model))
    return updates


def _learnt_alone(lab: Lab, budget: Budget, rate: float, seed: int, place: int) -> Model:
    own = (seed * PLACES + ONE_SHOT) * PLACES + place
    return finetuned(lab, lab.pretrained, budget.part, rate, own, epochs=budget.epochs)


def _one_shot_rate(lab: Lab, pool: Sequence[str]) -> float:
    """Return one rate for all seeds, chosen at the budget of the first."""
    chosen = spread(list(enumerate(budgets(lab, pool, 0))), lab.settings.tuning.datasets)
    return best_rate(
        lab,
        lab.settings.learning.lr,
        "fuse",
        lambda rate: [_learnt_alone(lab, budget, rate, 0, place) for place, budget in chosen],
    )


def learnt_together(lab: Lab, pool: Sequence[str], seed: int) -> Model:
    """Return Multitask's body after as many steps, on the same examples, as a line takes."""
    # One rate for all seeds, chosen at the whole budget of the first.
    rate = best_rate(
        lab, lab.settings.learning.lr, "multitask", lambda rate: [_joint(lab, pool, rate, 0)]
    )
    return _joint(lab, pool, rate, seed)


def _joint(lab: Lab, pool: Sequence[str], rate: float, seed: int) -> Model:
    shares = [Share(one.part, one.steps) for one in budgets(lab, pool, seed)]
    return multitask(lab, lab.pretrained, shares, rate, seed)


def uniform_soup(lab: Lab, updates: Sequence[Update]) -> Model:
    """Return the plain average of finetuned models."""
    return fused(lab, lab.pretrained, updates, UNIFORM)


def greedy_soup(lab: Lab, updates: Sequence[Update], score: Score) -> Model:
    """Return the average of those that each raised the score, the best one first."""
    return fused(lab, lab.pretrained, updates, GREEDY, score=score)
