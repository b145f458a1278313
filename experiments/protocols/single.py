"""What the protocols with a single data set share: federated learning by ColD."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from experiments.data import SCORED
from experiments.lab import Lab
from experiments.steps.finetuning import contribution_rate, finetuned
from experiments.steps.following import PRETRAINED, followed, looked_at, scorings
from experiments.steps.lines import Way
from experiments.steps.scoring import suite_of

CENTRAL = "centralised"


@dataclass(frozen=True)
class Size:
    """An arm: so many contributors with so many examples each."""

    arm: str
    contributors: int
    examples: int
    fresh: bool = False


def dataset_of(lab: Lab) -> str:
    """Return the data set that all contributors have parts of."""
    return lab.settings.single or lab.data.largest()


def compared(lab: Lab, sizes: Iterable[Size]) -> None:
    """Run a line of each size on parts of one data set, and score it on that."""
    name = dataset_of(lab)
    loaded, last = suite_of(lab, [name], [name]), scorings(lab)
    for seed in lab.seeds:
        looked_at(lab, PRETRAINED, lab.pretrained, seed, loaded, last)
        for size in sizes:
            followed(lab, _way(lab, name, size), seed, loaded, last)


def centralised(lab: Lab, examples: int, rounds: int) -> None:
    """Score the pretrained model finetuned at one place on all that the contributors had."""
    name = dataset_of(lab)
    loaded, last = suite_of(lab, [name], [name]), scorings(lab)
    options: dict[str, Any] = {"epochs": lab.settings.learning.epochs * rounds}
    rate = contribution_rate(lab, [name], CENTRAL, examples, **options)
    for seed in lab.seeds:
        with lab.failing(CENTRAL, seed=seed):
            part = lab.data.part(name, examples, seed, 0, SCORED)
            model = finetuned(lab, lab.pretrained, part, rate, seed, **options)
            looked_at(lab, CENTRAL, model, seed, loaded, last)


def _way(lab: Lab, name: str, size: Size) -> Way:
    rate = contribution_rate(lab, [name], size.arm, size.examples)
    return Way(
        size.arm, [name], rate, lab.settings.recipe,
        contributors=size.contributors, examples=size.examples, fresh=size.fresh,
    )  # fmt: skip
