"""The greedy soup: take an update in when that makes the mean score better."""

from __future__ import annotations

import numpy as np

from coldfusion_shared.fusion.methods import Facts, Parameters, WeightMethod, methods
from coldfusion_shared.fusion.updates import Doubles


class GreedySoupParameters(Parameters):
    """The greedy soup has none."""


def soup_weights(_: GreedySoupParameters, facts: Facts) -> Doubles:
    """
    Return equal weights for the updates of the soup.

    Each update is scored alone; by falling score, each is added while the mean of the soup with it
    scores strictly higher than without. K + K - 1 scores at most.
    """
    assert facts.score is not None, "the method says that it needs scores"
    alone = [facts.score(_equal([place], facts.count)) for place in range(facts.count)]
    order = sorted(range(facts.count), key=lambda place: -alone[place])
    soup, best = [order[0]], alone[order[0]]
    for place in order[1:]:
        score = facts.score(_equal([*soup, place], facts.count))
        if score > best:
            soup, best = [*soup, place], score
    return _equal(soup, facts.count)


def _equal(places: list[int], count: int) -> Doubles:
    weights = np.zeros(count)
    weights[places] = 1 / len(places)
    return weights


methods.register("greedy_soup")(
    WeightMethod(
        summary="mean of the updates that make the score better, taken in one by one",
        paper="https://arxiv.org/abs/2203.05482",
        parameters=GreedySoupParameters,
        weights=soup_weights,
        needs_gram=False,
        needs_score=True,
    )
)
