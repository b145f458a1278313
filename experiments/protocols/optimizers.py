"""All server optimizers, each with its own defaults."""

from __future__ import annotations

from typing import Any

from coldfusion_shared.fusion.optimizers import discover
from experiments.lab import Lab
from experiments.protocols import protocol
from experiments.steps.finetuning import contribution_rate
from experiments.steps.following import PRETRAINED, followed, looked_at, scorings
from experiments.steps.lines import Way
from experiments.steps.scoring import suite_of


def _pairs(arms: list[str]) -> list[tuple[str, str]]:
    return [(arm, "none") for arm in arms if arm not in (PRETRAINED, "none")]


@protocol("optimizers", "server optimizers over the rounds", pairs=_pairs, served=True)
def run(lab: Lab) -> None:
    """The rate is the recipe's without an optimizer, and each one's default with it."""
    names, recipe = lab.data.names, lab.settings.recipe
    loaded, last = suite_of(lab, names, names), scorings(lab)
    lr = contribution_rate(lab, names, "all")
    for seed in lab.seeds:
        looked_at(lab, PRETRAINED, lab.pretrained, seed, loaded, last)
        for name in lab.settings.optimizers or list(discover()):
            own: dict[str, Any] = {"optimizer": name, "optimizer_parameters": {}}
            if name != "none":
                own["server_lr"] = None
            followed(lab, Way(name, names, lr, recipe.model_copy(update=own)), seed, loaded, last)
