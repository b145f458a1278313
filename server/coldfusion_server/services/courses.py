"""The course of a model: all its rounds, the moves of its head, and its bases, each in short."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import BaseRow, ContributionRow, HeadMoveRow, ModelRow, RoundRow
from coldfusion_server.services import head_moves
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_model
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.gates import Gate, GateVerdict
from coldfusion_shared.schemas.models import HeadMove

_TAKEN = (ContributionState.ACCEPTED, ContributionState.FUSED, ContributionState.SET_ASIDE)


@dataclass(frozen=True)
class PastRound:
    """
    What became of a round.

    Attributes:
        number: which.
        state: where it is, or how it ended.
        base: number of the base that it went from.
        result: number of the base that it published.
        accepted: contributions that it has or had.
        opened_at: when it began to take them.
        finished_at: when it ended; null: it has not.
        verdict: what the gate said of its candidate.
        max_relative_norm: what its gate allowed of a step; null: any.
        reason: why it ended as it did.
    """

    number: int
    state: RoundState
    base: int
    result: int | None
    accepted: int
    opened_at: datetime
    finished_at: datetime | None
    verdict: GateVerdict | None
    max_relative_norm: float | None
    reason: str | None


@dataclass(frozen=True)
class PastBase:
    """
    A base and where it stands.

    Attributes:
        number: which.
        parent: number of the base that it was fused onto; null for v0.
        on_line: whether it is the head, or the head comes from it.
        replays: number of the base that it stands in for; null: it was published by a round.
        distance: of its weights from v0's, over the norm of those; null: not measured yet.
        created_at: when it was published.
    """

    number: int
    parent: int | None
    on_line: bool
    replays: int | None
    distance: float | None
    created_at: datetime


@dataclass(frozen=True)
class Course:
    """Rounds, moves of the head that no round made, and bases, each oldest first."""

    rounds: list[PastRound]
    moves: list[HeadMove]
    bases: list[PastBase]


def course(ctx: Context, name: str, principal: Principal | None, newest: int) -> Course:
    """Return the `newest` rounds, moves and bases of a model; v0 is always among the bases."""
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        moves = select(HeadMoveRow).where(
            HeadMoveRow.model_id == model.id, HeadMoveRow.kind != head_moves.PUBLISHED
        )
        moves = moves.order_by(HeadMoveRow.id.desc()).limit(newest)
        return Course(
            _rounds(session, model, newest),
            [head_moves.to_schema(row) for row in reversed(session.scalars(moves).all())],
            _bases(session, model, newest),
        )


def _rounds(session: Session, model: ModelRow, newest: int) -> list[PastRound]:
    query = select(RoundRow).where(RoundRow.model_id == model.id)
    rows = session.scalars(query.order_by(RoundRow.number.desc()).limit(newest)).all()
    accepted = (
        select(ContributionRow.round_id, func.count())
        .where(
            ContributionRow.round_id.in_([row.id for row in rows]),
            ContributionRow.state.in_(_TAKEN),
        )
        .group_by(ContributionRow.round_id)
    )
    counted = {round_id: number for round_id, number in session.execute(accepted)}
    return [_round(row, counted.get(row.id, 0)) for row in reversed(rows)]


def _round(row: RoundRow, accepted: int) -> PastRound:
    gate = Gate.model_validate((row.policy or {}).get("gate", {}))
    return PastRound(
        row.number,
        RoundState(row.state),
        row.base_number,
        row.result_number,
        accepted,
        row.opened_at,
        row.finished_at,
        None if row.gate is None else GateVerdict.model_validate(row.gate),
        gate.max_relative_norm,
        row.reason,
    )


def _bases(session: Session, model: ModelRow, newest: int) -> list[PastBase]:
    line, parents = {model.current}, head_moves.parents(session, model)
    at = model.current
    while (parent := parents[at]) is not None:
        line.add(at := parent)
    # Manifests are long, and not asked for here.
    query = select(
        BaseRow.number,
        BaseRow.parent_number,
        BaseRow.replays_number,
        BaseRow.distance,
        BaseRow.created_at,
    ).where(BaseRow.model_id == model.id)
    last = session.execute(
        query.where(BaseRow.number > 0).order_by(BaseRow.number.desc()).limit(newest)
    ).all()
    first = session.execute(query.where(BaseRow.number == 0)).all()
    return [
        PastBase(number, parent, number in line, replays, distance, created_at)
        for number, parent, replays, distance, created_at in [*first, *reversed(last)]
    ]
