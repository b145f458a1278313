"""The same with a model of another architecture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from experiments.lab import Lab, model_in
from experiments.pretrain import pretrained
from experiments.protocols import protocol
from experiments.steps.finetuning import contribution_rate
from experiments.steps.following import PRETRAINED, followed, looked_at, scorings
from experiments.steps.lines import Way
from experiments.steps.scoring import suite_of


@protocol(
    "other-architecture", "ColD with a model of another architecture", "Appendix D", pooled=False
)
def run(lab: Lab) -> None:
    """The folder `other_base`; without one, a model that is pretrained here on the texts."""
    settings, names = lab.settings, lab.data.names
    if settings.other_base is not None:
        base = model_in(Path(settings.other_base))
    else:
        base = pretrained(lab, settings.other_kind)
    other = replace(lab, pretrained=base)
    loaded, last = suite_of(other, names, names), scorings(other)
    way = Way("cold", names, contribution_rate(other, names, "cold"), settings.recipe)
    for seed in other.seeds:
        looked_at(other, PRETRAINED, base, seed, loaded, last)
        followed(other, way, seed, loaded, last)
