"""Finding rows, with the caller's rights in mind."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import BaseRow, ModelRow, RoundRow
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.errors import BaseNotFound, ModelNotFound, RoundNotFound
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.models import Policy

OPEN = "open"
LATEST = "latest"


def find_model(session: Session, name: str, principal: Principal | None) -> ModelRow:
    """
    Return the row of the model called `name`.

    Raises:
        ModelNotFound: there is none, or `principal` may not know of it.
    """
    row = session.scalar(select(ModelRow).where(ModelRow.name == searchable(name)))
    if row is None or not may_read(row, principal):
        raise ModelNotFound(
            f"There is no model {name[:100]!r} here, or you may not see it.",
            hint="List what there is with coldfusion-client models, or where the server runs with "
            "coldfusion-server model list.",
        )
    return row


def may_read(model: ModelRow, principal: Principal | None) -> bool:
    """Return whether `principal` may read the model: everybody a public one, any token others."""
    return model.public or principal is not None


def policy_of(model: ModelRow) -> Policy:
    """Return the model's policy."""
    return Policy.model_validate(model.policy)


def find_base(session: Session, model: ModelRow, version: str) -> BaseRow:
    """Return the row of a base; raises `BaseNotFound`."""
    number = model.current if version == LATEST else _number(version)
    row = session.scalar(
        select(BaseRow).where(BaseRow.model_id == model.id, BaseRow.number == number)
    )
    if row is None:
        raise BaseNotFound(
            f"{model.name} has no base {version[:20]!r}; the newest is v{model.current}.",
            hint="Use a version like v0, or latest.",
        )
    return row


def manifest_of(row: BaseRow) -> Manifest:
    """Return a base's manifest."""
    return Manifest.model_validate_json(row.manifest)


def find_round(session: Session, model: ModelRow, number: str) -> RoundRow:
    """Return the row of a round, by number or ``open``; raises `RoundNotFound`."""
    query = select(RoundRow).where(RoundRow.model_id == model.id)
    if number == OPEN:
        query = query.where(RoundRow.state == RoundState.OPEN)
    else:
        query = query.where(RoundRow.number == _digits(number))
    row = session.scalar(query)
    if row is None:
        raise RoundNotFound(f"{model.name} has no round {number[:20]!r}.")
    return row


def searchable(text: str) -> str:
    """Return `text` as what can be looked for: no name has a NUL, and PostgreSQL refuses one."""
    return "" if "\0" in text else text


def _number(version: str) -> int:
    return _digits(version[1:]) if version.startswith("v") else -1


def _digits(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
