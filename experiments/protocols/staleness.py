"""Contributions that are made from older bases: what they cost, and what the discount is worth."""

from __future__ import annotations

from collections.abc import Callable

from experiments.lab import Lab
from experiments.protocols import all_with_first, protocol
from experiments.steps.finetuning import contribution_rate
from experiments.steps.following import PRETRAINED, followed, looked_at, scorings
from experiments.steps.lines import Seat, Way
from experiments.steps.scoring import suite_of

EXPONENTS = (0.0, 0.5)


@protocol("staleness", "half of a round is made from older bases", pairs=all_with_first)
def run(lab: Lab) -> None:
    """Every second contributor is behind; before there are as many bases, as far as it goes."""
    names, recipe = lab.data.names, lab.settings.recipe
    loaded, last = suite_of(lab, names, names), scorings(lab)
    lr = contribution_rate(lab, names, "all")
    for seed in lab.seeds:
        looked_at(lab, PRETRAINED, lab.pretrained, seed, loaded, last)
        followed(lab, Way("nobody behind", names, lr, recipe), seed, loaded, last)
        for delay in lab.settings.delays:
            for exponent in EXPONENTS:
                arm = f"{delay} behind, discount {exponent:g}"
                own = recipe.model_copy(update={"staleness_exponent": exponent})
                followed(
                    lab, Way(arm, names, lr, own, behind=_every_second(delay)), seed, loaded, last
                )


def _every_second(delay: int) -> Callable[[Seat], int]:
    return lambda seat: delay * (seat.place % 2)
