"""
Who the store belongs to, and the key that screening measures with.

Garbage collection removes what its own database does not need. Two Repositories over one store
would remove each other's objects; so a Repository has a name of its own, which the first one that
uses a store writes into it, and no other one starts there.
"""

from __future__ import annotations

import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import RepositoryRow
from coldfusion_server.services.context import Context
from coldfusion_shared.errors import ConfigurationError
from coldfusion_shared.screening.sketch import KEY_BYTES


def claim_store(ctx: Context) -> None:
    """
    Make sure that the store is this Repository's; a new one is taken.

    Raises:
        ConfigurationError: it is another one's.
    """
    name = repository_name(ctx)
    owner = ctx.store.claim(name)
    if owner != name:
        raise ConfigurationError(
            f"The object store belongs to another Repository ({owner[:40]}), whose database is not "
            "this one.",
            hint="Choose another data folder, bucket or s3_prefix. If that Repository is gone for "
            "good, remove the object or file 'owner' in the store and start again.",
        )


def repository_name(ctx: Context) -> str:
    """Return the Repository's name, which it gets when it is first asked."""
    with ctx.database.read() as session:
        name = _name(session)
    return name or _new_name(ctx)


def screening_key(ctx: Context) -> bytes:
    """
    Return the key of screening's sketches and digests, which is made when it is first asked for.

    It is kept in the database, beside what was measured with it: of a key that is lost, or changed
    with the secret of sessions, nothing could be compared any more.
    """
    repository_name(ctx)
    with ctx.database.read() as session:
        key = session.scalar(select(RepositoryRow.screening_key).limit(1))
    return bytes.fromhex(key or _new_key(ctx))


def _new_key(ctx: Context) -> str:
    with ctx.database.alone() as session:
        row = session.scalars(select(RepositoryRow).limit(1)).one()
        # Another process may have been here since.
        if row.screening_key is None:
            row.screening_key = secrets.token_hex(KEY_BYTES)
        return row.screening_key


def _new_name(ctx: Context) -> str:
    with ctx.database.alone() as session:
        # Another process may have been here since.
        name = _name(session)
        if name is None:
            name = secrets.token_hex(16)
            session.add(RepositoryRow(id=name, created_at=ctx.now()))
        return name


def _name(session: Session) -> str | None:
    return session.scalar(select(RepositoryRow.id).limit(1))
