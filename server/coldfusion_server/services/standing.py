"""How each contribution lay to the others of its round, for its contributor's receipt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributionRow
from coldfusion_shared.fusion.plan import Plan
from coldfusion_shared.fusion.updates import Doubles
from coldfusion_shared.screening.check import shown
from coldfusion_shared.screening.sketch import Sketch


@dataclass(frozen=True)
class Standing:
    """
    One update among those that were fused with it.

    Attributes:
        cosine: with their weighted mean; null: one of the two is zero.
        norm_ratio: its norm over the median norm; null: that is zero.
    """

    cosine: float | None
    norm_ratio: float | None


def keep(session: Session, items: Sequence[ContributionRow], plan: Plan) -> None:
    """
    Write down how the round's contributions lie to each other, in the caller's transaction.

    By the Gram matrix of the fuse; where its method does without one, by the sketches of screening,
    whose cosines are off by about 0.01. Of what was screened before there were sketches nothing is
    known.
    """
    weights = np.array(plan.mean_weights or [1 / len(items)] * len(items))
    if plan.gram is not None:
        found = by_products(plan.gram.total, weights)
    else:
        found = _by_sketches(session, items, weights)
    for item, one in zip(items, found, strict=bool(found)):
        # As all that is told of sketches: more digits would tell of their key.
        item.cosine = None if one.cosine is None else shown(one.cosine)
        item.norm_ratio = None if one.norm_ratio is None else shown(one.norm_ratio)


def forget(item: ContributionRow) -> None:
    """Forget how a contribution lay to others that it is not fused with."""
    item.cosine = item.norm_ratio = None


def by_products(products: Doubles, weights: Doubles) -> list[Standing]:
    """Return how updates lie to their mean: inner products, (K, K), and weights, (K,), to K."""
    with_mean = products @ weights
    return _standings(np.diag(products), with_mean, float(weights @ with_mean))


def by_vectors(vectors: Doubles, weights: Doubles) -> list[Standing]:
    """Return how vectors lie to their mean: vectors, (K, m), and weights, (K,), to K."""
    mean = weights @ vectors
    squares = np.einsum("ij,ij->i", vectors, vectors)
    return _standings(squares, vectors @ mean, float(mean @ mean))


def _by_sketches(
    session: Session, items: Sequence[ContributionRow], weights: Doubles
) -> list[Standing]:
    query = select(ContributionRow.id, ContributionRow.sketch)
    rows = session.execute(query.where(ContributionRow.id.in_([item.id for item in items])))
    texts = {number: text for number, text in rows if text is not None}
    if len(texts) < len(items):
        return []
    vectors = np.array([Sketch.from_text(texts[item.id]).values for item in items], float)
    # As they are fused: late ones count less.
    factors = np.array([1.0 if item.factor is None else item.factor for item in items])
    return by_vectors(factors[:, None] * vectors, weights)


def _standings(squares: Doubles, with_mean: Doubles, mean_square: float) -> list[Standing]:
    norms = np.sqrt(np.maximum(squares, 0))
    median, scale = float(np.median(norms)), norms * np.sqrt(max(0.0, mean_square))
    return [
        Standing(
            cosine=min(1.0, max(-1.0, float(product / divisor))) if divisor else None,
            norm_ratio=float(norm) / median if median else None,
        )
        for product, divisor, norm in zip(with_mean, scale, norms, strict=True)
    ]
