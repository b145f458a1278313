"""A round of very many: copies of one accepted contribution, written into the database."""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import inspect, select
from sqlalchemy.orm import Session, undefer

from coldfusion_server.db.database import Database
from coldfusion_server.db.tables import ContributionFileRow, ContributionRow, ContributorRow
from coldfusion_shared.contributions import ContributionState

# So many contributions has each of the crowd.
EACH = 4


def fill_round(database: Database, count: int) -> None:
    """
    Let the newest accepted contribution's round have `count` accepted ones more.

    They have its findings and its measures, and digests of their own; their bytes are nowhere.
    """
    with database.write() as session:
        query = select(ContributionRow).where(ContributionRow.state == ContributionState.ACCEPTED)
        newest = query.order_by(ContributionRow.number.desc()).limit(1)
        pattern = session.scalars(newest.options(undefer("*"))).one()
        files = session.scalars(
            select(ContributionFileRow).where(ContributionFileRow.contribution_id == pattern.id)
        ).all()
        people = [_person(session, pattern, n) for n in range(-(-count // EACH))]
        session.flush()
        for place in range(count):
            row = _copy(pattern, person=people[place // EACH].id, place=place)
            session.add(row)
            session.add_all(_file(file, row.id) for file in files)


def _person(session: Session, pattern: ContributionRow, number: int) -> ContributorRow:
    name = f"crowd-{number:04d}-{secrets.token_hex(2)}"
    row = ContributorRow(name=name, created_at=pattern.declared_at)
    session.add(row)
    return row


def _copy(pattern: ContributionRow, person: int, place: int) -> ContributionRow:
    own = {
        "number": None,
        "id": secrets.token_hex(8),
        "contributor_id": person,
        "idempotency_key": secrets.token_hex(8),
        "weights_sha256": secrets.token_hex(32),
        "tensors_digest": secrets.token_hex(32),
        "position": (pattern.position or 0) + place + 1,
    }
    return ContributionRow(**{**_values(pattern), **own})


def _file(pattern: ContributionFileRow, contribution: str) -> ContributionFileRow:
    own = {"id": None, "contribution_id": contribution, "sha256": secrets.token_hex(32)}
    return ContributionFileRow(**{**_values(pattern), **own})


def _values(row: Any) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in inspect(type(row)).column_attrs}
