"""Krum: keep the one update that lies closest to its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from coldfusion_shared.fusion.methods import Facts, Parameters, WeightMethod, methods
from coldfusion_shared.fusion.updates import Doubles

PAPER = "https://papers.nips.cc/paper/6617-machine-learning-with-adversaries"


class KrumParameters(Parameters):
    """Parameters of `krum`."""

    byzantine: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="number f of contributions that may be hostile; null: as many as K allows",
    )


def minimum(parameters: KrumParameters) -> int:
    """Return 2 f + 3, below which f hostile contributions can win."""
    return 2 * (parameters.byzantine or 0) + 3


def assumed_byzantine(parameters: KrumParameters, count: int) -> int:
    """Return f: what was asked for, or the largest that `count` contributions allow."""
    return (count - 3) // 2 if parameters.byzantine is None else parameters.byzantine


def krum_scores(squared_distances: Doubles, byzantine: int) -> Doubles:
    """
    Return for each update the sum of its smallest squared distances to the others; low is good.

    Args:
        squared_distances: between the updates, (K, K).
        byzantine: f; the K - f - 2 nearest are summed, but at least one.
    """
    count = len(squared_distances)
    others = squared_distances + np.diag(np.full(count, np.inf))
    nearest = max(1, count - byzantine - 2)
    scores: Doubles = np.sort(others, axis=1)[:, :nearest].sum(axis=1)
    return scores


def krum_order(squared_distances: Doubles, byzantine: int, ids: Sequence[str]) -> list[int]:
    """
    Return the places of the updates by rising score.

    Of equal scores, which two nearest neighbours have, the update that is nearer to all others
    comes first, then the one whose id does: never the one that merely arrived earlier.

    Args:
        squared_distances: between the updates, (K, K).
        byzantine: f.
        ids: of the updates.
    """
    scores = krum_scores(squared_distances, byzantine)
    totals = np.sort(squared_distances, axis=1).sum(axis=1)
    return sorted(range(len(ids)), key=lambda place: (scores[place], totals[place], ids[place]))


def krum_weights(parameters: KrumParameters, facts: Facts) -> Doubles:
    """Return 1 for the update with the best score."""
    return keep_best(parameters, facts, 1)


def keep_best(parameters: KrumParameters, facts: Facts, keep: int) -> Doubles:
    """Return ``1 / keep`` for the `keep` updates with the best scores, else 0."""
    byzantine = assumed_byzantine(parameters, facts.count)
    order = krum_order(facts.known_gram.squared_distances, byzantine, facts.ids)
    weights = np.zeros(facts.count)
    weights[order[:keep]] = 1 / keep
    return weights


methods.register("krum")(
    WeightMethod(
        summary="the one update that lies closest to its neighbours",
        paper=PAPER,
        parameters=KrumParameters,
        weights=krum_weights,
        minimum=minimum,
    )
)
