"""Which examples a seed trains on."""

from __future__ import annotations

import random
from collections import defaultdict

from coldfusion_shared.data.dataset import Split
from coldfusion_shared.data.sampling import stratified_order


def drawn(split: Split, size: int, seed: int) -> Split:
    """
    Return the `size` examples of `split` that a seed trains on, with every label that has room.

    Of more examples than are wanted, a stratified sample. Of no more, a bootstrap sample of them,
    each label as often as it was: the seeds' scores then tell, in both cases, how much the choice
    of the training examples moves the score.
    """
    if size >= len(split):
        return _resampled(split, seed)
    order = stratified_order(split.strata, seed)
    # The first of each label before all others: a rare one would come late or never.
    firsts = set({split.strata[index]: index for index in reversed(order)}.values())
    ranked = sorted(order, key=lambda index: index not in firsts)
    return split.take(sorted(ranked[:size]))


def _resampled(split: Split, seed: int) -> Split:
    groups = defaultdict(list)
    for index, label in enumerate(split.strata):
        groups[label].append(index)
    rng = random.Random(seed)
    chosen = (rng.choices(group, k=len(group)) for group in groups.values())
    return split.take(sorted(index for group in chosen for index in group))
