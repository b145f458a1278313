"""Reading the audit log: shown to admins, checked, written out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import select

from coldfusion_server.db.tables import AuditRow
from coldfusion_server.events import audit, chain
from coldfusion_server.events.chain import Head
from coldfusion_server.services import paging
from coldfusion_server.services.context import Context
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.schemas.audit import AuditEntry
from coldfusion_shared.schemas.common import Page
from coldfusion_shared.schemas.tokens import Role


def list_entries(
    ctx: Context,
    principal: Principal | None,
    window: paging.Window,
    *,
    model: str | None = None,
    action: str | None = None,
) -> Page[AuditEntry]:
    """
    Return the entries, newest first; for admins.

    Args:
        ctx: the service's surroundings.
        principal: who asks.
        window: which part.
        model: only those of this model.
        action: only those of this kind.

    Raises:
        Forbidden: the caller is no admin.
        AuditBroken: an entry cannot be read.
    """
    require(principal, Role.ADMIN)
    query = select(AuditRow)
    if model is not None:
        query = query.where(AuditRow.model == model)
    if action is not None:
        query = query.where(AuditRow.action == action)
    with ctx.database.read() as session:
        return paging.page(session, query, AuditRow.number, window, audit.to_schema)


def verify(ctx: Context, noted: Head | None) -> Head:
    """
    Check the whole log and return its head.

    Args:
        ctx: the service's surroundings.
        noted: a head that it had at some time; without one a tail that was cut off is not found.

    Raises:
        AuditBroken: an entry was changed, removed or put in; names the first one.
    """
    with ctx.database.read() as session:
        return chain.check(audit.entries(session), noted)


def verify_file(file: Path, noted: Head | None) -> Head:
    """Check a log that was exported, as `verify` does; raises `InvalidRequest`, too."""
    try:
        with file.open(encoding="utf-8", newline="\n") as lines:
            return chain.check(_parsed(lines), noted)
    except OSError as error:
        raise InvalidRequest(
            f"{str(file)!r} cannot be read: {error.strerror}.",
            hint="Name a file that audit export has written.",
        ) from None
    except UnicodeDecodeError:
        raise chain.broken(f"{file.name} is not the text that was exported") from None


def lines(ctx: Context) -> Iterator[str]:
    """Yield each entry as a line of canonical JSON, the first one first, as of one moment."""
    with ctx.database.read() as session:
        for entry in audit.entries(session):
            yield line_of(entry)


def line_of(entry: AuditEntry) -> str:
    """Return the entry as it is exported."""
    return chain.canonical(entry.model_dump()) + "\n"


def _parsed(exported: Iterator[str]) -> Iterator[AuditEntry]:
    for number, line in enumerate(exported, 1):
        try:
            entry = AuditEntry.model_validate_json(line, strict=True)
        except ValueError:
            raise chain.broken(f"Line {number} of the exported log is no entry") from None
        if line_of(entry) != line:
            raise chain.broken(f"Line {number} of the exported log is not as it was written")
        yield entry
