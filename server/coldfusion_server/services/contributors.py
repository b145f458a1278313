"""Contributors by name: which names there can be, and whose they are."""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from datetime import datetime

from sqlalchemy import bindparam, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributorRow, InvitationRow
from coldfusion_shared.errors import InvalidRequest, NameTaken, NotFound
from coldfusion_shared.schemas.evaluations import OWN_EVALUATOR

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_])?")
# Who might be taken for the Repository itself, or for whoever asks.
_RESERVED = frozenset({"admin", "coldfusion", "me", "operator", OWN_EVALUATOR})


def check_name(name: str) -> None:
    """Raise `InvalidRequest` unless a contributor can be called `name`."""
    if name.casefold() == OWN_EVALUATOR:
        raise InvalidRequest(
            f"The name {name!r} is taken: the Repository's own evaluator signs with it.",
            hint="Choose another name for the contributor.",
        )
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name[:100]!r} cannot be a contributor's name.",
            hint="Use letters, digits, '.', '_' and '-', 100 characters at most.",
        )


def check_free(session: Session, name: str) -> None:
    """
    Check that somebody new may choose `name` for himself.

    Raises:
        InvalidRequest: nobody can be called so.
        NameTaken: somebody is, perhaps in other letters, or the Repository is.
    """
    check_name(name)
    twin = func.lower(ContributorRow.name) == name.lower()
    if name.casefold() in _RESERVED or session.scalar(select(ContributorRow.id).where(twin)):
        raise name_taken(name)


def free_name(session: Session, wanted: str) -> str:
    """
    Return `wanted`, with a number behind it where it cannot be had.

    A name that an open invitation keeps for somebody is not to be had either: whoever joins by that
    would be the same contributor.
    """
    kept = select(InvitationRow.id).where(
        func.lower(InvitationRow.name) == bindparam("name"),
        InvitationRow.token_id.is_(None),
        InvitationRow.revoked_at.is_(None),
    )
    for name in (wanted, *(f"{wanted}-{number}" for number in range(2, 10))):
        with suppress(InvalidRequest, NameTaken):
            check_free(session, name)
            if session.scalar(kept.limit(1), {"name": name.lower()}) is None:
                return name
    return f"{wanted}-{secrets.token_hex(4)}"


def existing(session: Session, name: str) -> ContributorRow:
    """Return the contributor called `name`, locked; raises `NotFound`."""
    query = select(ContributorRow).where(ContributorRow.name == name)
    # No name has a NUL, and PostgreSQL refuses one.
    row = None if "\0" in name else session.scalar(query.with_for_update())
    if row is None:
        raise NotFound(
            f"There is no contributor {name[:100]!r} here.",
            hint="See: coldfusion-server contributor list",
        )
    return row


def named(session: Session, name: str, now: datetime) -> ContributorRow:
    """Return the contributor called `name`, who is made if there was none."""
    query = select(ContributorRow).where(ContributorRow.name == name)
    row = session.scalar(query)
    if row is not None:
        return row
    try:
        return added(session, name, now)
    except NameTaken:
        return session.scalars(query).one()  # Another process was first.


def added(session: Session, name: str, now: datetime) -> ContributorRow:
    """Return a new contributor; raises `NameTaken` where another process was first."""
    row = ContributorRow(name=name, created_at=now)
    try:
        with session.begin_nested():
            session.add(row)
            session.flush()
    except IntegrityError:
        raise name_taken(name) from None
    return row


def name_taken(name: str) -> NameTaken:
    """Return the error that says that `name` is another one's."""
    return NameTaken(
        f"There is a contributor {name!r} here already, or one whose name looks the same.",
        hint="Choose another name. If it is yours, ask the operator for an invitation in that "
        "name, or for a token.",
    )
