"""Every contributor with as many examples, whatever its data set's size."""

from __future__ import annotations

from experiments.lab import Lab
from experiments.protocols import protocol
from experiments.steps.finetuning import contribution_rate
from experiments.steps.following import PRETRAINED, followed, looked_at, scorings
from experiments.steps.lines import Way
from experiments.steps.scoring import suite_of


@protocol(
    "fixed-examples", "contributors with the same number of examples", "Appendix F", served=True
)
def run(lab: Lab) -> None:
    """Data sets that have fewer take no part, but are scored, as unseen ones."""
    names, wanted = lab.data.names, lab.settings.examples
    pool = [name for name in names if len(lab.data.dataset(name).train) >= wanted] or names
    loaded, last = suite_of(lab, names, pool), scorings(lab)
    way = Way("cold", pool, contribution_rate(lab, pool, "cold"), lab.settings.recipe)
    for seed in lab.seeds:
        looked_at(lab, PRETRAINED, lab.pretrained, seed, loaded, last)
        followed(lab, way, seed, loaded, last)
