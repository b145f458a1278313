"""Finding rows, with the caller's rights in mind."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Select, or_, select, true
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import BaseRow, ModelRow, RoundRow
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.errors import BaseNotFound, FileNotInBase, ModelNotFound, RoundNotFound
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.files import FileEntry
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
    """Return whether `principal` may read the model: a public one everybody, else by a token."""
    return model.public or (principal is not None and principal.covers(model.name))


def readable(principal: Principal | None) -> ColumnElement[bool]:
    """Return the condition of the models that `principal` may read, as `may_read` has it."""
    if principal is None:
        return ModelRow.public.is_(True)
    return (
        true()
        if principal.models is None
        else or_(ModelRow.public, ModelRow.name.in_(principal.models))
    )


def readable_names(principal: Principal | None) -> Select[str]:
    """Return the query for the names of the models that `principal` may read."""
    return select(ModelRow.name).where(readable(principal))


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
            f"{model.name} has no base {version[:20]!r}; latest is v{model.current}.",
            hint="Use a version that it has, such as v0.",
        )
    return row


def manifest_of(row: BaseRow) -> Manifest:
    """Return a base's manifest."""
    return Manifest.model_validate_json(row.manifest)


def find_file(manifest: Manifest, path: str, name: str) -> FileEntry:
    """Return one file of a base or a candidate, which people call `name`, by its path."""
    for file in manifest.files:
        if file.path == path:
            return file
    raise FileNotInBase(f"{name} has no file {path[:200]!r}.")


def find_round(session: Session, model: ModelRow, number: str) -> RoundRow:
    """Return the row of a round, by number or ``open``; raises `RoundNotFound`."""
    query = select(RoundRow).where(RoundRow.model_id == model.id)
    if number == OPEN:
        query = query.where(RoundRow.state == RoundState.OPEN)
    else:
        query = query.where(RoundRow.number == _digits(number))
    row = session.scalar(query)
    if row is None:
        raise _no_round(session, model, number)
    return row


def _no_round(session: Session, model: ModelRow, number: str) -> RoundNotFound:
    query = select(RoundRow).where(RoundRow.model_id == model.id).order_by(RoundRow.number.desc())
    newest = session.scalar(query.limit(1)) if number == OPEN else None
    if newest is not None:
        return RoundNotFound(
            f"{model.name} has no open round: round {newest.number} is {newest.state}.",
            hint="The next one opens when it has ended.",
        )
    return RoundNotFound(
        f"{model.name} has no round {number[:20]!r}.",
        hint=f"See its rounds: GET /v1/models/{model.name}/rounds",
    )


def searchable(text: str) -> str:
    """Return `text` as what can be looked for: no name has a NUL, and PostgreSQL refuses one."""
    return "" if "\0" in text else text


def _number(version: str) -> int:
    # One name for each: no v01.
    number = _digits(version[1:])
    return number if version == f"v{number}" else -1


def _digits(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
