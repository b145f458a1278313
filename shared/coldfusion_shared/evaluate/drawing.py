"""Which examples a seed trains on, and how much chance all seeds have in common."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

from coldfusion_shared.data.dataset import Split
from coldfusion_shared.data.sampling import stratified_order


def drawn(split: Split, size: int, seed: int) -> Split:
    """
    Return the `size` examples of `split` that a seed trains on, with every label that has room.

    Of at least twice as many examples, a stratified sample. Of fewer, as many of each label, but
    drawn with replacement: without it the seeds would learn nearly the same, and their scores
    would not tell how much the choice of the training examples moves them. There are never more
    than `split` has.
    """
    order = stratified_order(split.strata, seed)
    # The first of each label before all others: a rare one would come late or never.
    firsts = set({split.strata[index]: index for index in reversed(order)}.values())
    ranked = sorted(order, key=lambda index: index not in firsts)
    chosen = ranked[:size]
    if with_replacement(size, len(split)):
        chosen = _redrawn(split, Counter(split.strata[index] for index in chosen), seed)
    return split.take(sorted(chosen))


def with_replacement(size: int, pool: int) -> bool:
    """Return whether `size` examples of `pool` are drawn with replacement."""
    return 2 * size > pool


def different(size: int, pool: int) -> int:
    """Return about how many different ones `size` examples are that are drawn with replacement."""
    return round(pool * (1 - (1 - 1 / pool) ** size))


def pool_share(size: int, pool: int) -> float:
    """
    Return how much of a score's variance all seeds share, as they draw from one pool.

    A score moves, about, with a mean over its training examples. If single ones vary by s^2, a mean
    over n of them varies by s^2 / n; but that of the pool, which no seed can leave, varies by
    s^2 / N, and no two seeds differ in it. Drawn with replacement, the seeds differ by s^2 / n, so
    that what they share is n / N of what they show. Drawn without, they differ by
    (1 - n / N) s^2 / n, the finite population's (Cochran 1977), and share n / (N - n) of what they
    show, which is the jackknife that leaves N - n out (Shao and Wu 1989). It is 1 at most.

    Args:
        size: n, examples that a seed draws, at most `pool`.
        pool: N, examples that it draws them from.

    Returns:
        the variance that is shared, in variances between seeds.
    """
    return size / pool if with_replacement(size, pool) else size / (pool - size)


def _redrawn(split: Split, counts: Counter[int], seed: int) -> list[int]:
    """Return indices, for each label as many as `counts` says, some of them several times."""
    groups = defaultdict(list)
    for index, label in enumerate(split.strata):
        groups[label].append(index)
    rng = random.Random(seed)
    chosen = (rng.choices(group, k=counts[label]) for label, group in groups.items())
    return [index for group in chosen for index in group]
