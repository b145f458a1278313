"""How many contribute to a round, each with a data set of its own."""

from __future__ import annotations

from experiments.lab import Lab
from experiments.protocols import last_with_first, protocol
from experiments.steps.finetuning import contribution_rate
from experiments.steps.following import PRETRAINED, followed, looked_at, scorings
from experiments.steps.lines import Way
from experiments.steps.scoring import suite_of


@protocol(
    "contributors",
    "contributors of a round, each with a data set of its own",
    "Figure 5",
    pairs=last_with_first,
    served=True,
)
def run(lab: Lab) -> None:
    """More of them cost more in all: what is asked for is what a round comes to."""
    names = lab.data.names
    loaded, last = suite_of(lab, names, names), scorings(lab)
    rate = contribution_rate(lab, names, "all")
    for seed in lab.seeds:
        looked_at(lab, PRETRAINED, lab.pretrained, seed, loaded, last)
        for count in lab.settings.contributor_counts:
            way = Way(f"{count} contributors", names, rate, lab.settings.recipe, contributors=count)
            followed(lab, way, seed, loaded, last)
