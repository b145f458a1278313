"""
Sign-ins that are past, by which nobody comes in any more.

A sign-in is kept so that its id token is good once, and so that its token can be ended where the
provider says less of the person. It is past when its token has ended, and it was made so long ago
that its id token proves nothing by its age alone. With it goes the token of a browser's session,
whose secret nobody knows; a session reads and never writes, so nothing else names it. The audit
log keeps its id. A token that a person has stays, so that they are told what became of it.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import ColumnElement, delete, func, or_, select

from coldfusion_server.db.tables import SignInRow, TokenRow
from coldfusion_server.services.context import Context

# An id token is good for minutes (see `oidc.id_tokens`); a clock that was set back, or another
# server's, is wrong by less than this.
KEPT = timedelta(days=1)
BATCH = 500


def count(ctx: Context) -> int:
    """Return how many sign-ins are past."""
    query = select(func.count()).select_from(SignInRow).join(SignInRow.token).where(_is_past(ctx))
    with ctx.database.read() as session:
        return session.scalar(query) or 0


def remove(ctx: Context) -> int:
    """Remove sign-ins that are past; return how many. It may be killed at any point."""
    removed = 0
    while done := _remove_some(ctx):
        removed += done
        ctx.pulse()
    return removed


def _remove_some(ctx: Context) -> int:
    query = (
        select(TokenRow.id, SignInRow.browser)
        .join(SignInRow, SignInRow.token_id == TokenRow.id)
        .where(_is_past(ctx))
        .order_by(TokenRow.id)
        .limit(BATCH)
        .with_for_update(of=TokenRow)
    )
    # Nobody signs in meanwhile, and whoever ends tokens has them locked.
    with ctx.database.alone() as session:
        found = session.execute(query).all()
        ids = [token_id for token_id, _ in found]
        of_browsers = [token_id for token_id, browser in found if browser]
        session.execute(delete(SignInRow).where(SignInRow.token_id.in_(ids)))
        session.execute(delete(TokenRow).where(TokenRow.id.in_(of_browsers)))
    return len(found)


def _is_past(ctx: Context) -> ColumnElement[bool]:
    """Return the condition of tokens that have ended, and came of a sign-in long ago."""
    now = ctx.now()
    has_ended = or_(TokenRow.revoked_at.is_not(None), TokenRow.expires_at <= now)
    return (TokenRow.created_at <= now - KEPT) & has_ended
