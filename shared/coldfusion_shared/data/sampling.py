"""Stratified sampling: one order of the examples whose every stretch has the labels' shares."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence


def stratified_order(labels: Sequence[int], seed: int) -> list[int]:
    """
    Return the examples' indices, shuffled, with every label spread evenly over the whole.

    Any stretch of the order holds the labels in about their shares, and its first half holds
    every label, so that a cut at any place is a stratified sample or split.
    """
    shuffled = list(range(len(labels)))
    random.Random(seed).shuffle(shuffled)
    sizes, met, place = Counter(labels), Counter[int](), {}
    for index in shuffled:
        label = labels[index]
        met[label] += 1
        place[index] = (met[label] - 0.5) / sizes[label]
    # Sorting is stable: what has the same place stays shuffled.
    return sorted(shuffled, key=place.__getitem__)
