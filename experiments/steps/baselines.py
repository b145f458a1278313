"""What ColD is compared with, at the same budget of examples and steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from coldfusion_shared.data import TextDataset
from coldfusion_shared.errors import TrainingFailed
from coldfusion_shared.schemas.recipes import Recipe
from experiments.data import steps_of
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


def budgets(
    lab: Lab, pool: Sequence[str], seed: int, validation: int | None = None
) -> list[Budget]:
    """Return the budget of a whole line for each data set that takes part in it."""
    settings = lab.settings
    seats = dealt(pool, settings.rounds, settings.contributors, seed)
    turns = Counter(seat.dataset for row in seats for seat in row)
    return [_budget(lab, name, turns[name], seed, validation) for name in pool if turns[name]]


def _budget(lab: Lab, name: str, turns: int, seed: int, validation: int | None) -> Budget:
    settings, learning = lab.settings, lab.settings.learning
    own = min(settings.examples, len(lab.data.dataset(name).train))
    scored = {} if validation is None else {"scored": validation}
    part = lab.data.part(name, own * turns, seed, **scored)
    return Budget(
        part,
        learning.epochs * own * turns / len(part.train),
        turns * steps_of(own, learning.epochs, learning.batch_size),
    )


def one_shot(lab: Lab, pool: Sequence[str], seed: int) -> list[Update]:
    """Return the pretrained model finetuned once on all that each data set's contributors had."""
    found = budgets(lab, pool, seed)
    rate = _one_shot_rate(lab, pool)
    updates = []
    for place, budget in enumerate(found):
        own = (seed * PLACES + ONE_SHOT) * PLACES + place
        try:
            model = finetuned(lab, lab.pretrained, budget.part, rate, own, epochs=budget.epochs)
        except TrainingFailed as error:
            lab.note("failure", "fuse", seed=seed, note=f"{budget.part.name}: {error.message}")
            continue
        updates.append(Update(f"{place:03}-{budget.part.name}", model))
    return updates


def _one_shot_rate(lab: Lab, pool: Sequence[str]) -> float:
    """Return one rate for all seeds, chosen at the budget of the first."""
    found = budgets(lab, pool, 0, lab.settings.measuring.validation)
    count = min(lab.settings.tuning.datasets, len(found))
    chosen = [found[index * len(found) // count] for index in range(count)]
    # The epochs are the mean of theirs: they differ where a data set is small.
    epochs = round(sum(one.epochs for one in chosen) / count, 3)
    parts = [one.part for one in chosen]
    return best_rate(lab, lab.pretrained, parts, lab.settings.learning.lr, "fuse", epochs=epochs)


def learnt_together(lab: Lab, pool: Sequence[str], seed: int) -> Model:
    """Return Multitask's body after as many steps, on the same examples, as a line takes."""
    rate = _multitask_rate(lab, pool)
    return multitask(lab, lab.pretrained, _shares(budgets(lab, pool, seed)), rate, seed)


def _multitask_rate(lab: Lab, pool: Sequence[str]) -> float:
    rates = lab.settings.learning.lr
    if len(rates) == 1:
        return rates[0]
    shares = _shares(budgets(lab, pool, 0, lab.settings.measuring.validation))
    scores = []
    for rate in rates:
        try:
            tried = multitask(lab, lab.pretrained, shares, rate, 0, lab.settings.tuning.share)
            scores.append(float(tried.facts.get("validation", 0.0)))
        except TrainingFailed:
            scores.append(float("-inf"))
    best = max(range(len(rates)), key=lambda index: scores[index])
    told = ", ".join(f"{r:g}: {s:.1f}" for r, s in zip(rates, scores, strict=True))
    lab.note(
        "choice", "multitask", value=rates[best],
        note=f"learning rate by validation scores ({told})",
    )  # fmt: skip
    return rates[best]


def _shares(found: Sequence[Budget]) -> list[Share]:
    return [Share(one.part, one.steps) for one in found]


def uniform_soup(lab: Lab, updates: Sequence[Update]) -> Model:
    """Return the plain average of finetuned models."""
    return fused(lab, lab.pretrained, updates, UNIFORM)


def greedy_soup(lab: Lab, updates: Sequence[Update], score: Score) -> Model:
    """Return the average of those that each raised the score, the best one first."""
    return fused(lab, lab.pretrained, updates, GREEDY, score=score)
