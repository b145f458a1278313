"""
How the contributions of a round lie to each other, by what screening has measured of them.

No file is read. Cosines are those of sketches, which are off by about 0.01, so they are told with
two decimals and never with more: with all digits the sketches' secret key could leak. Compared are
those whose weights screening keeps in mind, too; of a rejected one its findings tell enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributionRow, ContributorRow, RoundRow
from coldfusion_server.services import past, standing
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_model, find_round
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.fusion.updates import Doubles
from coldfusion_shared.screening.check import shown
from coldfusion_shared.screening.sketch import Sketch

# Contributions that are set beside each other at a time. A sketch takes 44 kB as it is stored.
MOST = 50
DECIMALS = 2
# Earlier ones that there have to be before they say what is usual, and the share of them, at each
# end, that is not called so.
FEWEST, TENTHS = 8, 10

_S = ContributionState
# Those that the mean is of: what waits in quarantine must not turn it.
_LET_IN = (_S.ACCEPTED, _S.SET_ASIDE, _S.FUSED)

Cosine = float | None


@dataclass(frozen=True)
class Compared:
    """
    Some contributions of a round beside each other, and beside the whole round.

    Attributes:
        ids: of those whose updates are compared, in the order in which they were asked for.
        cosines: between their updates, a row for each; null: one of the two is zero.
        with_mean: between each of them and the mean update of those of `ids` that were let in;
            null: there is none, or one of the two is zero.
        lengths: by id, of every one asked for whose length is known: norm of its update relative
            to its base's, over the median of the round's that were let in.
        usual: between which lengths, by the same measure, four of five of those lie that the model
            has fused before; null: too few to say.
        shares: by contributor: part of the round's weights, 0 to 1; empty: it was not fused.
    """

    ids: Sequence[str] = ()
    cosines: Sequence[Sequence[Cosine]] = ()
    with_mean: Sequence[Cosine] = ()
    lengths: Mapping[str, float] = field(default_factory=dict)
    usual: tuple[float, float] | None = None
    shares: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """
    Where one contribution lay in the fuse of its round.

    Attributes:
        id: the contribution's.
        cosine: of its update with the mean of the round; null: not known.
        norm_ratio: length of its update over the median; null: not known.
    """

    id: str
    cosine: float | None
    norm_ratio: float | None


def compare(
    ctx: Context, name: str, number: str, ids: Sequence[str], principal: Principal | None
) -> Compared:
    """
    Return how some contributions of a round lie to each other and to all of it.

    Args:
        ctx: the service's surroundings.
        name: the model's.
        number: of the round.
        ids: of contributions; others than the round's own, and more than `MOST`, are left out.
        principal: who asks.

    Raises:
        ModelNotFound, RoundNotFound: there is none, or it is none of the caller's business.
    """
    asked = list(ids)[:MOST]
    with ctx.database.read() as session:
        row = find_round(session, find_model(session, name, principal), number)
        sketches = session.execute(_sketches(row, asked)).all()
        lengths = _lengths(session, ContributionRow.round_id == row.id, past.held())
        earlier = _earlier(session, row)
        shares = _shares(session, row)
    let_in = [length for length, state in lengths.values() if state in _LET_IN and length]
    middle = median(let_in) if let_in else 0.0
    return Compared(
        **_cosines(asked, sketches),
        lengths={
            one: shown(lengths[one][0] / middle) for one in asked if one in lengths and middle
        },
        usual=_usual(earlier, middle),
        shares=shares,
    )


def places(ctx: Context, name: str, number: str, principal: Principal | None) -> list[Place]:
    """Return where the contributions of a round lay in its fuse, by the order of the fuse."""
    with ctx.database.read() as session:
        row = find_round(session, find_model(session, name, principal), number)
        query = select(ContributionRow.id, ContributionRow.cosine, ContributionRow.norm_ratio)
        known = ContributionRow.cosine.is_not(None) | ContributionRow.norm_ratio.is_not(None)
        query = query.where(ContributionRow.round_id == row.id, known)
        return [
            Place(*found) for found in session.execute(query.order_by(ContributionRow.position))
        ]


def by_vectors(vectors: Doubles, let_in: Sequence[bool]) -> tuple[list[list[Cosine]], list[Cosine]]:
    """
    Return the cosines between vectors, (K, m), and with the mean of those that were `let_in`.

    They have two decimals; null: one of the two is zero.
    """
    # By one thread: BLAS's own would wait for each other where many pages are asked for at once.
    products = np.einsum("im,jm->ij", vectors, vectors)
    norms = np.sqrt(np.diag(products))
    scale = np.outer(norms, norms)
    between = [
        [
            _told(product / divisor) if divisor else None
            for product, divisor in zip(*rows, strict=True)
        ]
        for rows in zip(products, scale, strict=True)
    ]
    weights = np.array(let_in, float)
    found = standing.by_products(products, weights / max(1.0, weights.sum()))
    return between, [None if one.cosine is None else _told(one.cosine) for one in found]


def _told(cosine: float) -> float:
    # Nothing is -0.0.
    return round(max(-1.0, min(1.0, float(cosine))), DECIMALS) + 0.0


def _cosines(asked: Sequence[str], rows: Sequence[Any]) -> dict[str, Any]:
    found = {row.id: row for row in rows}
    ids = [one for one in asked if one in found]
    if not ids:
        return {}
    vectors = np.array([Sketch.from_text(found[one].sketch).values for one in ids], float)
    between, with_mean = by_vectors(vectors, [found[one].state in _LET_IN for one in ids])
    return {"ids": ids, "cosines": between, "with_mean": with_mean}


def _sketches(row: RoundRow, asked: Sequence[str]) -> Select[*tuple[Any, ...]]:
    return select(ContributionRow.id, ContributionRow.state, ContributionRow.sketch).where(
        ContributionRow.id.in_(asked),
        ContributionRow.round_id == row.id,
        ContributionRow.sketch.is_not(None),
        past.held(),
    )


def _lengths(
    session: Session, *where: ColumnElement[bool], limit: int | None = None
) -> dict[str, tuple[float, str]]:
    """Return norms relative to the base's, and states, by id, the newest first."""
    norm, base_norm = (ContributionRow.measures[name].as_float() for name in ("norm", "base_norm"))
    query = (
        select(ContributionRow.id, ContributionRow.state, norm, base_norm)
        .where(ContributionRow.sketch.is_not(None), *where)
        .order_by(ContributionRow.number.desc())
        .limit(limit)
    )
    return {
        found: (length / of if of else 0.0, state)
        for found, state, length, of in session.execute(query)
    }


def _earlier(session: Session, row: RoundRow) -> list[float]:
    """Return the lengths of what was fused in the model's earlier rounds, of the newest of it."""
    rounds = select(RoundRow.id).where(
        RoundRow.model_id == row.model_id, RoundRow.number < row.number
    )
    fused = (
        ContributionRow.round_id.in_(rounds),
        ContributionRow.result_number.is_not(None),
    )
    return [length for length, _ in _lengths(session, *fused, limit=past.EARLIER).values()]


def _usual(earlier: Sequence[float], middle: float) -> tuple[float, float] | None:
    if len(earlier) < FEWEST or not middle:
        return None
    cuts = quantiles(earlier, n=TENTHS, method="inclusive")
    return shown(cuts[0] / middle), shown(cuts[-1] / middle)


def _shares(session: Session, row: RoundRow) -> dict[str, float]:
    """Return each contributor's part of the weights of a round's fuse."""
    query = (
        select(ContributorRow.name, func.sum(ContributionRow.weight))
        .join(ContributorRow, ContributorRow.id == ContributionRow.contributor_id)
        .where(
            ContributionRow.round_id == row.id,
            ContributionRow.chosen,
            ContributionRow.weight.is_not(None),
        )
        .group_by(ContributorRow.name)
        .order_by(ContributorRow.name)
    )
    weights = {name: weight or 0.0 for name, weight in session.execute(query)}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()} if total > 0 else {}
