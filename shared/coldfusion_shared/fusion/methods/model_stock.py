"""Model Stock: the mean of the updates, shortened tensor by tensor by how much they disagree."""

from __future__ import annotations

import numpy as np

from coldfusion_shared.fusion.gram import cosines
from coldfusion_shared.fusion.methods import Facts, Parameters, WeightMethod, methods
from coldfusion_shared.fusion.updates import Doubles


class ModelStockParameters(Parameters):
    """Model Stock has none."""


def stock_weights(_: ModelStockParameters, facts: Facts) -> dict[str, Doubles]:
    """Return ``t / K`` for each update, by tensor."""
    return {
        name: np.full(facts.count, interpolation(gram.products) / facts.count)
        for name, gram in facts.known_gram.tensors.items()
    }


def interpolation(products: Doubles) -> float:
    """
    Return t = K c / (1 + (K - 1) c), within [0, 1], with c the mean cosine between the updates.

    Args:
        products: inner products of one tensor's updates, (K, K), K at least 2.
    """
    count = len(products)
    pairs = cosines(products)[np.triu_indices(count, 1)]
    mean = float(pairs.mean())
    # Below zero the formula passes its pole; updates that disagree that much move nothing.
    if mean <= 0:
        return 0.0
    return min(1.0, count * mean / (1 + (count - 1) * mean))


methods.register("model_stock")(
    WeightMethod(
        summary="mean of the updates, shortened in each tensor by how much they disagree",
        paper="https://arxiv.org/abs/2403.19522",
        parameters=ModelStockParameters,
        weights=stock_weights,
        minimum=lambda _: 2,
        by_tensor=True,
    )
)
