"""MGDA: the shortest convex combination of the updates, which goes against none of them."""

from __future__ import annotations

import numpy as np

from coldfusion_shared.fusion.methods import Facts, Parameters, WeightMethod, methods
from coldfusion_shared.fusion.updates import Doubles

TOLERANCE = 1e-13
STEPS_PER_UPDATE = 1000


class MinNormParameters(Parameters):
    """The least-norm combination has none."""


def min_norm_weights(_: MinNormParameters, facts: Facts) -> Doubles:
    """
    Minimise ``w^T G w`` over weights that are at least 0 and sum to 1.

    Pairwise Frank-Wolfe: each step moves weight, by exact line search, from the worst update that
    has some to the best one, until no such move gains.
    """
    products = facts.known_gram.total
    largest = float(np.diag(products).max())
    weights = np.zeros(facts.count)
    weights[int(np.argmin(np.diag(products)))] = 1
    for _step in range(STEPS_PER_UPDATE * facts.count):
        slope = products @ weights
        best = int(np.argmin(slope))
        worst = int(np.argmax(np.where(weights > 0, slope, -np.inf)))
        gain = slope[worst] - slope[best]
        if gain <= TOLERANCE * largest:
            break
        curve = products[best, best] + products[worst, worst] - 2 * products[best, worst]
        step = min(weights[worst], gain / curve) if curve > 0 else weights[worst]
        weights[best] += step
        weights[worst] -= step
    return weights


methods.register("min_norm")(
    WeightMethod(
        summary="the shortest convex combination of the updates (MGDA)",
        paper="https://arxiv.org/abs/1810.04650",
        parameters=MinNormParameters,
        weights=min_norm_weights,
    )
)
