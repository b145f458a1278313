"""The head of a model: which base it is, how it came there, and how the bases hang together."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import BaseRow, HeadMoveRow, ModelRow
from coldfusion_server.services import paging
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_model
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.schemas.common import Page
from coldfusion_shared.schemas.models import HeadMove

PUBLISHED, ROLLBACK, REPLAY = "published", "rollback", "replay"


def move_head(
    session: Session,
    now: datetime,
    model: ModelRow,
    number: int,
    kind: str,
    *,
    reason: str | None = None,
    who: int | None = None,
) -> None:
    """
    Make base `number` the head, in the caller's transaction.

    Args:
        session: the transaction.
        now: the time.
        model: whose head it is.
        number: the base's.
        kind: what moves it.
        reason: why, where a person decided it.
        who: that person's contributor id.
    """
    row = HeadMoveRow(
        model_id=model.id,
        kind=kind,
        from_number=model.current,
        to_number=number,
        reason=reason,
        contributor_id=who,
        at=now,
    )
    session.add(row)
    model.current = number


def newest(session: Session, model: ModelRow) -> int:
    """Return the number of the base that was published last; the head may be an older one."""
    number = session.scalar(select(func.max(BaseRow.number)).where(BaseRow.model_id == model.id))
    assert number is not None, "a model always has v0"
    return number


def parents(session: Session, model: ModelRow) -> dict[int, int | None]:
    """Return the tree of the model's bases: the number of each one's parent, null for v0's."""
    query = select(BaseRow.number, BaseRow.parent_number).where(BaseRow.model_id == model.id)
    return {number: parent for number, parent in session.execute(query)}


def places(session: Session, model: ModelRow) -> dict[int, int]:
    """Return where each base stands: a replay's in the place of the one that it stands in for."""
    query = (
        select(BaseRow.number, BaseRow.replays_number)
        .where(BaseRow.model_id == model.id)
        .order_by(BaseRow.number)
    )
    found: dict[int, int] = {}
    for number, replaced in session.execute(query):
        # What a replay stands in for was there before it, and may be a replay's itself.
        found[number] = number if replaced is None else found[replaced]
    return found


def last_move(session: Session, model: ModelRow) -> HeadMove | None:
    """Return how the head came to where it is; null if it never moved."""
    row = session.scalar(
        select(HeadMoveRow)
        .where(HeadMoveRow.model_id == model.id)
        .order_by(HeadMoveRow.id.desc())
        .limit(1)
    )
    return None if row is None else to_schema(row)


def list_moves(
    ctx: Context, name: str, principal: Principal | None, window: paging.Window
) -> Page[HeadMove]:
    """Return all moves of the model's head, newest first."""
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        query = select(HeadMoveRow).where(HeadMoveRow.model_id == model.id)
        return paging.page(session, query, HeadMoveRow.id, window, to_schema)


def to_schema(row: HeadMoveRow) -> HeadMove:
    """Return what the API shows of a move."""
    return HeadMove.model_validate(
        {
            "kind": row.kind,
            "before": None if row.from_number is None else f"v{row.from_number}",
            "after": f"v{row.to_number}",
            "reason": row.reason,
            "by": None if row.contributor is None else row.contributor.name,
            "at": row.at,
        }
    )
