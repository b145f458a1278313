"""
What screening compares a contribution with: the model's others, by what was measured of them.

No file of another contribution is read again. The newest are looked at, so that screening takes as
long in the thousandth round as in the tenth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, or_, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributionRow, ContributorRow, RoundRow
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.screening.hindsight import Member
from coldfusion_shared.screening.history import Other, Past
from coldfusion_shared.screening.measures import Measures
from coldfusion_shared.screening.sketch import Sketch

_S = ContributionState
_Row = Row[*tuple[Any, ...]]
# Others that a contribution is compared with. A sketch takes 32 kB, so this is 64 MB at most.
MOST = 2000
# Those of earlier rounds that a whole round is compared with: as many as say what is usual.
EARLIER = 200
# Those whose weights may not be contributed again.
HELD = (_S.QUARANTINED, _S.ACCEPTED, _S.FUSED, _S.SET_ASIDE)


def held() -> ColumnElement[bool]:
    """Return the condition that a contribution's weights may not be contributed again."""
    # What was fused has its result for good: withdrawn, it is still part of that base.
    return or_(ContributionRow.state.in_(HELD), ContributionRow.result_number.is_not(None))


def past_of(session: Session, row: ContributionRow, known: Past | None = None) -> Past:
    """
    Return what is known of the others as `row` is screened.

    Args:
        session: the transaction.
        row: what is screened.
        known: what was known a moment ago; of those in it only states are read anew.
    """
    before = {} if known is None else {other.id: other for other in known.others}
    states = {found.id: found for found in session.execute(_states(row))}
    missing = [number for number in states if number not in before]
    read = {found.id: found for found in session.execute(_measured(missing))} if missing else {}
    others = [
        _other(found, read[number]) if number in read else _again(found, before[number])
        for number, found in states.items()
    ]
    return Past(
        contributor=row.contributor.name,
        round=row.round.number,
        base=f"v{row.base_number}",
        base_norm=_base_norm(session, row),
        others=others,
    )


def members_of(session: Session, ids: Sequence[str]) -> list[Member]:
    """
    Return some contributions that are to be fused together, as screening has measured them.

    What was taken before anything was measured is left out: there is nothing to compare.
    """
    query = _known(ContributionRow.id.in_(ids)).add_columns(ContributionRow.decided_by)
    known = {found.id: found for found in session.execute(query)}
    return [
        Member(_other(known[read.id], read), _measures(read), known[read.id].decided_by is not None)
        for read in session.execute(_measured(list(known)))
    ]


def fused_before(session: Session, model_id: int) -> list[Other]:
    """Return what was fused in the model's earlier rounds, the newest of it."""
    is_fused = ContributionRow.model_id == model_id, ContributionRow.result_number.is_not(None)
    query = _known(*is_fused).order_by(ContributionRow.number.desc()).limit(EARLIER)
    known = {found.id: found for found in session.execute(query)}
    read = {found.id: found for found in session.execute(_measured(list(known)))}
    return [_other(found, read[number]) for number, found in known.items()]


def _base_norm(session: Session, row: ContributionRow) -> float | None:
    """Return the norm of the base that it was made from, where that was measured before."""
    measures = session.scalar(
        select(ContributionRow.measures)
        .where(
            ContributionRow.model_id == row.model_id,
            ContributionRow.base_number == row.base_number,
            ContributionRow.sketch.is_not(None),
        )
        .limit(1)
    )
    return None if measures is None else float(measures["base_norm"])


def _states(row: ContributionRow) -> Select[*tuple[Any, ...]]:
    of_others = ContributionRow.model_id == row.model_id, ContributionRow.number != row.number
    return _known(*of_others, held()).order_by(ContributionRow.number.desc()).limit(MOST)


def _known(*conditions: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    return (
        select(
            ContributionRow.id,
            ContributionRow.state,
            ContributionRow.base_number,
            ContributionRow.tensors_digest,
            ContributionRow.result_number,
            ContributorRow.name.label("contributor"),
            RoundRow.number.label("round"),
        )
        .join(ContributorRow, ContributorRow.id == ContributionRow.contributor_id)
        .join(RoundRow, RoundRow.id == ContributionRow.round_id)
        # What was screened before this was measured has no sketch.
        .where(ContributionRow.sketch.is_not(None), *conditions)
    )


def _measured(ids: list[str]) -> Select[*tuple[Any, ...]]:
    return select(ContributionRow.id, ContributionRow.measures, ContributionRow.sketch).where(
        ContributionRow.id.in_(ids)
    )


def _measures(read: _Row) -> Measures:
    return Measures.from_json(read.measures, Sketch.from_text(read.sketch))


def _other(found: _Row, read: _Row) -> Other:
    measures = _measures(read)
    return Other(
        id=found.id,
        contributor=found.contributor,
        round=found.round,
        base=f"v{found.base_number}",
        state=_state(found),
        relative_norm=measures.relative_norm,
        tensor_norms=measures.tensor_norms,
        digest=found.tensors_digest,
        sketch=measures.sketch,
    )


def _again(found: _Row, before: Other) -> Other:
    return replace(before, round=found.round, state=_state(found))


def _state(found: _Row) -> ContributionState:
    return _S.FUSED if found.result_number is not None else ContributionState(found.state)
