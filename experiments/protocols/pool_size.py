"""How many data sets take part, scored on data sets that none of the arms has seen."""

from __future__ import annotations

import random
from collections.abc import Sequence

from coldfusion_shared.errors import InvalidRequest
from experiments.lab import Lab
from experiments.protocols import last_with_first, protocol
from experiments.steps.finetuning import contribution_rate
from experiments.steps.following import PRETRAINED, followed, looked_at, scorings
from experiments.steps.lines import Way
from experiments.steps.scoring import suite_of

# Of so many data sets at least one has to be unseen: an average over one or two says little.
UNSEEN = 4


@protocol("pool-size", "data sets that take part", "Appendix E", pairs=last_with_first, served=True)
def run(lab: Lab) -> None:
    """Pools grow one out of the other; contributions of a round stay as many."""
    names = lab.data.names
    order = random.Random("pool").sample(names, len(names))
    sizes = sizes_of(len(names), lab.settings.pool_sizes)
    unseen = sorted(order[max(sizes) :])
    always = sorted(order[: min(sizes)])
    # Scored on what all have seen, and on what none has.
    loaded, last = suite_of(lab, [*always, *unseen], always), scorings(lab)
    rate = contribution_rate(lab, names, "all")
    for seed in lab.seeds:
        looked_at(lab, PRETRAINED, lab.pretrained, seed, loaded, last)
        for size in sizes:
            way = Way(f"{size} data sets", sorted(order[:size]), rate, lab.settings.recipe)
            followed(lab, way, seed, loaded, last)


def sizes_of(count: int, wanted: Sequence[int]) -> list[int]:
    """
    Return the sizes of pools of `count` data sets, as large as wanted where enough are unseen.

    Raises:
        InvalidRequest: there are not two data sets.
    """
    if count < 2:
        raise InvalidRequest(
            "A pool needs two data sets: one that takes part, and one that is unseen.",
            hint="Give more in `datasets`.",
        )
    most = count - max(1, count // UNSEEN)
    return sorted({min(size, most) for size in wanted})
