"""Contributors that learn adapters, beside those that learn all weights."""

from __future__ import annotations

from experiments.lab import Lab
from experiments.protocols import protocol
from experiments.steps.finetuning import contribution_rate
from experiments.steps.following import PRETRAINED, followed, looked_at, scorings
from experiments.steps.lines import Way
from experiments.steps.scoring import suite_of


def _pairs(arms: list[str]) -> list[tuple[str, str]]:
    return [(arm, "full") for arm in ("lora",) if arm in arms]


@protocol("lora-vs-full", "LoRA adapters beside full finetunings", pairs=_pairs)
def run(lab: Lab) -> None:
    """The same examples and steps; learning rates are chosen for each."""
    names = lab.data.names
    loaded, last = suite_of(lab, names, names), scorings(lab)
    arms = {"full": {}, "lora": {"lora": True}}
    rates = {arm: contribution_rate(lab, names, arm, **options) for arm, options in arms.items()}
    for seed in lab.seeds:
        looked_at(lab, PRETRAINED, lab.pretrained, seed, loaded, last)
        for arm, options in arms.items():
            way = Way(arm, names, rates[arm], lab.settings.recipe, options=options)
            followed(lab, way, seed, loaded, last)
