"""The audit log: an entry for every decision, added in the transaction of what it tells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

import structlog
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json
from sqlalchemy import event, select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import AuditRow
from coldfusion_server.events import chain, outbox
from coldfusion_server.events.chain import Head
from coldfusion_shared.schemas.audit import AuditEntry

log = structlog.get_logger(__name__)

# Who needs no token: whoever is at the server's command line, and whoever has none.
OPERATOR = "operator"
VISITOR = "visitor"
BATCH_ROWS = 500


class Actor(Protocol):
    """Who decides something, by a token."""

    @property
    def name(self) -> str:
        """The contributor's name."""

    @property
    def token_id(self) -> str:
        """Which of the contributor's tokens it is; empty: none."""


def note(
    session: Session,
    now: datetime,
    who: Actor | str,
    action: str,
    *,
    model: str | None = None,
    subject: str | int | None = None,
    reason: str | None = None,
    **data: Any,
) -> None:
    """
    Add an entry to the caller's transaction, as its last step or beside an event.

    Entries come one at a time, and wait for the events' lock and for no other, so that nothing can
    wait in a circle for them.

    Args:
        session: the transaction.
        now: the time.
        who: whose decision it is; a text: somebody without a token.
        action: what, in the events' manner: ``model.policy``.
        model: the name of the model that it concerns.
        subject: id, number or name of what it is about.
        reason: why, in the words of who decided.
        data: what else there is to tell; no secrets.
    """
    outbox.one_at_a_time(session)
    entry = chain.seal(
        newest(session),
        at=now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        by=who if isinstance(who, str) else who.name,
        # Whoever is at the command line is the operator, and has none.
        token=None if isinstance(who, str) else who.token_id or None,
        action=action,
        model=model,
        subject=None if subject is None else str(subject),
        reason=reason,
        # Canonical JSON has no infinity, and a policy may.
        data=from_json(to_json(data, inf_nan_mode="strings")),
    )
    values = entry.model_dump(exclude={"data"})
    session.add(AuditRow(**values, data=chain.canonical(entry.data)))
    event.listen(session, "after_commit", partial(_log, entry), once=True)


def differences(before: BaseModel, after: BaseModel) -> dict[str, list[Any]]:
    """Return what differs, by its place: ``{"gate.kind": ["none", "suite"]}``, before and after."""
    old, new = (_flat(one.model_dump(mode="json")) for one in (before, after))
    names = sorted(old.keys() | new.keys())
    return {
        name: [old.get(name), new.get(name)] for name in names if old.get(name) != new.get(name)
    }


def _flat(values: dict[str, Any], place: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        inner = isinstance(value, dict) and value
        found |= _flat(value, f"{place}{name}.") if inner else {f"{place}{name}": value}
    return found


def newest(session: Session) -> Head:
    """Return the head of the log."""
    query = select(AuditRow.number, AuditRow.sha256).order_by(AuditRow.number.desc()).limit(1)
    row = session.execute(query).first()
    return chain.START if row is None else Head(*row)


def entries(session: Session) -> Iterator[AuditEntry]:
    """Yield the whole log, the first entry first; raises `AuditBroken` where one is none."""
    query = select(AuditRow).order_by(AuditRow.number).execution_options(yield_per=BATCH_ROWS)
    with session.scalars(query) as rows:
        for row in rows:
            yield to_schema(row)


def to_schema(row: AuditRow) -> AuditEntry:
    """Return the entry of a row; raises `AuditBroken` where somebody has made it unreadable."""
    values = {column: getattr(row, column) for column in AuditEntry.model_fields}
    try:
        values["data"] = json.loads(row.data)
        entry = AuditEntry.model_validate(values, strict=True)
        # What is hashed is what it means: nothing else may be written there either.
        is_ours = chain.canonical(entry.data) == row.data
    except (ValueError, TypeError, RecursionError, ValidationError):
        is_ours = False
    if not is_ours:
        raise chain.broken(f"Entry {row.number} of the audit log was changed: it cannot be read")
    return entry


def _log(entry: AuditEntry, _: Session) -> None:
    """Tell the log, which is often kept elsewhere, the head of the chain."""
    # A command prints on standard output what programs read, and has no log.
    if structlog.is_configured():
        head = Head(entry.number, entry.sha256)
        log.info("audit", action=entry.action, by=entry.by, head=str(head))
